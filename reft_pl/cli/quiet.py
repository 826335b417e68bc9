"""Filter terminal output: keep this package's messages, drop what a user cannot act on."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

from lightning.pytorch.utilities import rank_zero_only

from reft_pl.escapes import escape, one_line


def quieten() -> None:
    """Silence advertisements, progress bars of weight loading, and warnings about intended behaviour."""
    for message in (
        r".*in eval mode at the start of training",  # PPO trains without dropout
        r".*isinstance\(treespec, LeafSpec\)",
        r".*smaller than the logging interval",
        r".*does not have many workers",
        r".*exists and is not empty",
        r".*predict returned None",  # samples are in files
        r".*recommended to use `self\.log\(.*sync_dist=True",  # epoch-end values are already reduced over ranks
        r".*It is recommended to use `self.log\('test/",  # already reduced over ranks
        r"`torch.distributed.\w+` is deprecated",  # as DeepSpeed calls it
        r"LightningCLI's args parameter",  # passed both ways, since Lightning launches other ranks with sys.argv
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
    """Write to the current ``sys.stderr``, which Python callers of ``main`` may have redirected."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line; a traceback keeps its lines."""
        text = super().format(record)
        return escape(text) if record.exc_info else one_line(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record to the current ``sys.stderr``."""
        self.stream = sys.stderr
        super().emit(record)


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if "LOAD REPORT" in message:  # missing or unexpected weights: the loaders raise on these themselves
        return False
    return not message.startswith(("💡", "`weights_only` was not set", "TPU available", "Setting accelerator to CPU"))
