"""Log every sample of every rollout as JSON lines, and a few as a TensorBoard table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from reft_pl.escapes import escape
from reft_pl.modules.hooks import RolloutCallback
from reft_pl.types import Rollout, Sample


class SampleTable(RolloutCallback):
    """Append rollouts to ``<run_dir>/rollouts.jsonl`` and show some samples in TensorBoard's text tab.

    A line holds ``step`` (training batches before this rollout: the x axis of the curves), ``id``, ``question``, ``text``,
    ``status``, ``backend`` (which determined the status), ``value``, ``gold``, ``reward``, ``stop`` and ``tokens`` (response
    length). A checkpoint stores the length of the file; a run resumed from it truncates the file to that length. After a kill
    no line is missing, duplicated or torn.

    Args:
        every_n: Iterations between tables.
        rows: Samples in a table; 0 writes no tables.
    """

    def __init__(self, every_n: int = 20, rows: int = 4) -> None:
        self.every_n = every_n
        self.rows = rows
        self._length = 0  # bytes of the file written by this run so far

    @staticmethod
    def path(trainer: Trainer) -> Path:
        """Return the path of a run's file."""
        return Path(trainer.default_root_dir) / "rollouts.jsonl"

    def state_dict(self) -> dict[str, Any]:
        """Return the current length of the file."""
        return {"length": self._length}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the length at the checkpoint."""
        self._length = state_dict["length"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Truncate what was written after the checkpoint; a new run moves an older file aside."""
        if not trainer.is_global_zero:
            return
        path = self.path(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        if self._length == 0 and size > 0:
            path.replace(path.with_suffix(".jsonl.old"))
        elif self._length > size:
            rank_zero_warn(f"{path} lacks samples from before this resume: it contains only later ones")
            self._length = size
        elif self._length < size:
            with path.open("r+b") as file:
                file.truncate(self._length)

    def on_rollout_end(self, trainer: Trainer, module: LightningModule, rollout: Rollout) -> None:
        """Append the samples of all ranks."""
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        lines = "".join(json_line(step, sample, reward) for sample, reward in rollout.sampled)
        # A lone surrogate is not valid UTF-8; its escape is valid JSON.
        blob = gather(lines).encode("utf-8", "backslashreplace")
        if not trainer.is_global_zero:
            return
        with self.path(trainer).open("ab") as file:
            file.write(blob)
        self._length += len(blob)
        if self.rows and step % self.every_n == 0:
            table = markdown_table(rollout.sampled[: self.rows])
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_text("rollout/samples", table, step)


def json_line(step: int, sample: Sample, reward: float) -> str:
    """Format one sample as a line of JSON."""
    record = {
        "step": step,
        "id": sample.problem.id,
        "question": sample.problem.question,
        "text": sample.text,
        "status": sample.result.status.value,
        "backend": sample.result.backend,
        "value": sample.result.value,
        "gold": sample.problem.answer,
        "reward": round(reward, 6) if sample.rewarded else None,  # 0.1 in fp32 is 0.10000000149
        "stop": sample.completion.stop.value,
        "tokens": len(sample.completion.token_ids),
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def gather(lines: str) -> str:
    """Return the lines of all ranks, in rank order."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return lines
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, lines)
    return "".join(parts)


def markdown_table(samples: Sequence[tuple[Sample, float]]) -> str:
    """Format samples and their rewards as a Markdown table that shows their text verbatim."""
    head = "| question | response | status | value | gold | reward |\n|---|---|---|---|---|---|\n"
    rows = []
    for sample, reward in samples:
        result, problem = sample.result, sample.problem
        value = "" if result.value is None else str(result.value)
        earned = f"{reward:g}" if sample.rewarded else ""
        cells = (problem.question, sample.text, result.status.value, value, str(problem.answer), earned)
        rows.append("| " + " | ".join(map(escape_markdown, cells)) + " |\n")
    return head + "".join(rows)


def escape_markdown(text: str) -> str:
    """Escape text for a Markdown table cell: punctuation as entities, line breaks and indentation kept."""
    text = escape(text.replace("\r\n", "\n"))
    entities = re.sub(r"[^\w\s]", lambda match: f"&#{ord(match[0])};", text).replace("_", "&#95;")
    lines = (re.sub(r"^[ \t]+", lambda match: "&nbsp;" * len(match[0].expandtabs(4)), line) for line in entities.split("\n"))
    return "<br>".join(lines)
