"""What is said on the terminal: this package's notes, and not what a user can neither use nor act on."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

from lightning.pytorch.utilities import rank_zero_only

from reft_pl.escapes import one_line, printable


def quieten() -> None:
    """Drop advertisements, progress bars of weight files, and warnings about what this package does on purpose."""
    for message in (
        r".*in eval mode at the start of training",  # PPO trains without dropout
        r".*isinstance\(treespec, LeafSpec\)",
        r".*smaller than the logging interval",
        r".*does not have many workers",
        r".*exists and is not empty",
        r".*predict returned None",  # samples are in files
        r".*recommended to use `self\.log\(.*sync_dist=True",  # what is logged at the end of an epoch is of all ranks
        r".*It is recommended to use `self.log\('test/",  # the figure is that of all ranks already
        r"`torch.distributed.\w+` is deprecated",  # as DeepSpeed calls it
        r"LightningCLI's args parameter",  # given both ways, since Lightning starts further ranks by the command line
        r".*You defined a `validation_step` but have no `val_dataloader`",
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
        "DeepSpeed",
        "transformers.modeling_utils",
    ):
        logging.getLogger(name).addFilter(_is_news)

    ours = logging.getLogger("reft_pl")
    if not ours.handlers:
        ours.setLevel(logging.INFO if getattr(rank_zero_only, "rank", 0) == 0 else logging.ERROR)
        ours.addHandler(CurrentStandardError())

    from transformers.utils import logging as transformers_logging  # noqa: PLC0415 (slow to import)

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class CurrentStandardError(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is by then: who calls ``main`` from Python may have redirected it since."""

    def format(self, record: logging.LogRecord) -> str:
        """One line a record, whatever it quotes; a traceback keeps its lines."""
        text = super().format(record)
        return printable(text) if record.exc_info else one_line(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self.stream = sys.stderr
        super().emit(record)


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if "LOAD REPORT" in message:  # of weights left out or drawn: the loaders judge that themselves, and refuse
        return False
    return not message.startswith(("💡", "`weights_only` was not set", "TPU available", "Setting accelerator to CPU"))
