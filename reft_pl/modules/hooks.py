"""Callback hooks for the phases of one rollout-and-update iteration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from lightning.pytorch import Callback, LightningModule, Trainer

from reft_pl.interruption import interruption
from reft_pl.rollout.phases import Phase, PhaseProgress, PhaseTimer
from reft_pl.strategies.zero import ZeRO
from reft_pl.types import Rollout

__all__ = ["Phase", "PhaseDispatcher", "RolloutCallback"]


class RolloutCallback(Callback):
    """A Lightning callback with hooks for the phases of an iteration. Override what you need; every hook is a no-op.

    A training step of PPO or online self-training is: ``rollout`` (sample completions), ``execute`` (run their programs),
    ``score`` (log-probabilities, values, reference), ``on_rollout_end``, ``update`` (optimizer steps), ``on_update_end``.
    Greedy evaluation also runs the first two phases, with ``trainer.validating`` or ``trainer.testing`` true.
    """

    def on_phase_start(self, trainer: Trainer, module: LightningModule, phase: Phase, total: int) -> None:
        """A phase of ``total`` sequences begins."""

    def on_phase_progress(self, trainer: Trainer, module: LightningModule, phase: Phase, done: int) -> None:
        """``done`` of the phase's sequences are finished so far."""

    def on_phase_end(self, trainer: Trainer, module: LightningModule, phase: Phase, seconds: float) -> None:
        """The phase took ``seconds`` of wall time."""

    def on_rollout_end(self, trainer: Trainer, module: LightningModule, rollout: Rollout) -> None:
        """Samples are executed, rewarded and scored; the weights have not changed since sampling."""

    def on_update_end(self, trainer: Trainer, module: LightningModule, statistics: Mapping[str, float]) -> None:
        """All optimizer steps on this rollout are done. ``statistics`` holds the logged values by TensorBoard name."""


def may_stop_within_a_batch(trainer: Trainer) -> bool:
    """Whether a signal may interrupt phases that leave the weights alone; false on several ranks, which must stop together."""
    return trainer.world_size == 1 and not isinstance(trainer.strategy, ZeRO)


class PhaseDispatcher(PhaseTimer):
    """Time phases and call the hooks of the Trainer's ``RolloutCallback`` objects."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self._module = module

    @contextmanager
    def phase(self, phase: Phase, total: int) -> Iterator[PhaseProgress]:
        """Run the body as a phase; a signal may interrupt every phase except updates."""
        interruptible = phase != "update" and may_stop_within_a_batch(self._module.trainer)
        with interruption.allowed() if interruptible else nullcontext(), super().phase(phase, total) as progress:
            yield progress

    @property
    def callbacks(self) -> Iterator[RolloutCallback]:
        """The Trainer's rollout callbacks."""
        callbacks: Iterable[Callback] = getattr(self._module.trainer, "callbacks", ())
        return (callback for callback in callbacks if isinstance(callback, RolloutCallback))

    def on_start(self, phase: Phase, total: int) -> None:
        """Dispatch ``on_phase_start``."""
        for callback in self.callbacks:
            callback.on_phase_start(self._module.trainer, self._module, phase, total)

    def on_progress(self, phase: Phase, done: int) -> None:
        """Dispatch ``on_phase_progress``."""
        for callback in self.callbacks:
            callback.on_phase_progress(self._module.trainer, self._module, phase, done)

    def on_end(self, phase: Phase, seconds: float) -> None:
        """Dispatch ``on_phase_end``."""
        for callback in self.callbacks:
            callback.on_phase_end(self._module.trainer, self._module, phase, seconds)

    def rollout_end(self, rollout: Rollout) -> None:
        """Dispatch ``on_rollout_end``."""
        for callback in self.callbacks:
            callback.on_rollout_end(self._module.trainer, self._module, rollout)

    def update_end(self, statistics: Mapping[str, float]) -> None:
        """Dispatch ``on_update_end``."""
        for callback in self.callbacks:
            callback.on_update_end(self._module.trainer, self._module, statistics)
