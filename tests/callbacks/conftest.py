"""A real Trainer run with all phases, around a model of one parameter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from reft_pl.modules.hooks import PhaseDispatcher
from reft_pl.types import Completion, ExecutionResult, Problem, Rollout, Sample, Status, StopReason, TokenBatch

PHASES = ("rollout", "execute", "score", "update")
TEXT = 'def solution():\n    """a | b"""\n    return 2 < 3  # <b>*no*</b> markup'


def rollout_of(step: int, n: int) -> Rollout:
    """Build samples that differ between steps; every other one is correct."""
    samples = []
    for i in range(n):
        status = Status.OK if i % 2 == 0 else Status.TIMEOUT
        problem = Problem(id=f"p{step}-{i}", question=f"How many? “{i}”", answer=float(i))
        completion = Completion(f"r{i}", 0, tuple(range(i + 1)), (0.0,) * (i + 1), StopReason.EOS if i else StopReason.LENGTH)
        result = ExecutionResult(status, float(i) if status is Status.OK else None)
        samples.append(Sample(problem, completion, TEXT, result))
    mask = torch.ones(n, 2, dtype=torch.bool)
    outcome = torch.tensor([1.0 if i % 2 == 0 else 0.1 for i in range(n)])
    return Rollout(tuple(samples), TokenBatch(mask.long(), mask, mask), outcome)


class TinyModule(LightningModule):
    """Run the phases of an iteration and log its figures, as PPOModule does.

    ``kl`` and ``skipped`` give the figures of each training batch; ``at_phase`` is called with the batch and the phase half-way
    through it, to interrupt a run or look at it.
    """

    def __init__(
        self,
        sequences: int = 4,
        kl: Callable[[int], float] = lambda step: 0.0,
        skipped: Callable[[int], float] = lambda step: 0.0,
        at_phase: Callable[[int, str], None] = lambda step, phase: None,
        skipped_name: str = "update/skipped",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.sequences, self.kl, self.skipped, self.at_phase = sequences, kl, skipped, at_phase
        self.skipped_name = skipped_name
        self.phases = PhaseDispatcher(self)
        self.batches_trained: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        for phase in PHASES:
            with self.phases.phase(phase, self.sequences) as progress:
                progress.advance(self.sequences // 2)
                self.at_phase(step, phase)
                progress.advance(self.sequences - self.sequences // 2)
            if phase == "score":
                self.phases.rollout_end(rollout_of(step, self.sequences))
        optimizer = self.optimizers()
        optimizer.step()  # counts as the optimizer step of this batch
        statistics = {
            "rollout/reward": 0.25 + step / 100,
            "rollout/accuracy": 0.375,
            "rollout/kl": self.kl(step),
            self.skipped_name: self.skipped(step),
        }
        self.log_dict(statistics)
        self.phases.update_end(statistics)
        self.batches_trained.append(step)

    def _evaluate(self) -> None:
        for phase in PHASES[:2]:
            with self.phases.phase(phase, self.sequences) as progress:
                self.at_phase(-1, phase)
                progress.advance(self.sequences)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate()
        self.log("val/top1", 0.625)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate()
        self.log("test/top1/stories", 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "step").write_text(str(self.trainer.global_step))


@pytest.fixture
def tiny_module() -> type[TinyModule]:
    return TinyModule


@pytest.fixture
def loader() -> DataLoader[Any]:
    """Four batches."""
    return DataLoader(range(4), batch_size=1)  # type: ignore[arg-type]


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def make(*callbacks: Callback, **kwargs: Any) -> Trainer:
        settings: dict[str, Any] = {
            "max_epochs": 2,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "accelerator": "cpu",
            "default_root_dir": tmp_path,
        }
        return Trainer(callbacks=list(callbacks), **(settings | kwargs))

    return make
