"""Base of the training stages: optimizer, schedule, a guarded optimizer step, checkpoints that name their stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from reft_pl.errors import UserError
from reft_pl.models.export import check_export
from reft_pl.models.finite import refuse_not_finite
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.run_module import RunModule
from reft_pl.modules.schedule import Schedule
from reft_pl.modules.weight_average import WeightAverage
from reft_pl.rollout.seeds import counter_seed
from reft_pl.strategies import gradients
from reft_pl.strategies.sharded_checkpoint import warn_of_lost_optimizer_state
from reft_pl.strategies.zero import ZeRO, whole_weights

MicroBatches = Sequence[Callable[[], Tensor]]
"""Micro-batch losses, each computed when called."""


class StageModule(RunModule):
    """Base of the modules that train.

    Optimization is manual: one batch may take many optimizer steps, and each step many micro-batches.
    Subclasses implement ``training_step``, ``idle_loss`` and ``write_export``.

    Args:
        policy: The model to train and its dtype.
        optimizer: Creates the optimizer from the parameters.
        schedule: Learning-rate schedule.
        gradient_clip_norm: Global norm to which gradients are clipped.
        micro_batch_tokens: Upper bound on rows times the longest row of a micro-batch. It sets memory use and changes
            results only by rounding (``StageModule.update``).
        ema_decay: Validate and export an exponential moving average of the weights with this decay per optimizer step; 0 is
            off. Training and rollouts use the current weights. Not under ZeRO.
        **kwargs: Settings of ``RunModule``.

    Raises:
        UserError: a bound is not positive.
    """

    def __init__(
        self,
        policy: PolicySettings,
        optimizer: OptimizerCallable = MasterAdamW,
        schedule: Schedule = Schedule(),
        gradient_clip_norm: float = 1.0,
        micro_batch_tokens: int = 4096,
        ema_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, **kwargs)
        if micro_batch_tokens < 1 or gradient_clip_norm <= 0:
            raise UserError("micro_batch_tokens and gradient_clip_norm must be positive: check model.*")
        if not 0 <= ema_decay < 1:
            raise UserError(f"model.ema_decay is {ema_decay}, but must be at least 0 and below 1")
        self.automatic_optimization = False
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.gradient_clip_norm = gradient_clip_norm
        self.micro_batch_tokens = micro_batch_tokens
        self.average = WeightAverage(self, ema_decay) if ema_decay else None
        self._rate = 0.0  # learning rate of the latest optimizer step

    @abstractmethod
    def idle_loss(self) -> Tensor:
        """Run a forward pass with weight 0, which keeps this rank in step with ranks that have more micro-batches."""

    def used_in_parts(self) -> list[nn.Parameter]:
        """Return weights that a forward pass may use several times, depending on the size of the micro-batch."""
        return []

    @abstractmethod
    def write_export(self, folder: Path, weights: bool = True) -> None:
        """Write the model to a folder that ``transformers`` loads; rank 0 calls this while it has the whole weights.

        Args:
            folder: Target folder.
            weights: False omits the weights, to test whether everything else can be written.
        """

    def export(self, folder: Path) -> None:
        """Export the current model to a folder; call it on every rank."""
        with whole_weights(self.trainer.strategy):
            if self.trainer.is_global_zero:
                self.write_export(folder)
        self.trainer.strategy.barrier()

    def on_fit_start(self) -> None:
        """Fail before training if the model cannot be exported or averaged."""
        if self.average is not None and isinstance(self.trainer.strategy, ZeRO):
            raise UserError("model.ema_decay does not work under ZeRO: leave it out, or set trainer.strategy to ddp")
        check_export(self.policy_settings.init_from, partial(self.write_export, weights=False))

    def train_with_dropout(self, network: nn.Module, step: int) -> None:
        """Put a network in training mode, and seed dropout for this step and rank.

        A resumed run thus draws the same dropout masks.
        """
        torch.manual_seed(counter_seed(self.seed, "dropout", self.trainer.current_epoch, str(step), self.ranks.rank) % 2**63)
        network.train()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Create the optimizer over the trainable weights and its schedule; ``update`` steps both."""
        try:
            optimizer = self.optimizer_factory(self.parameter_groups())
        except ValueError as error:
            raise UserError(f"the optimizer rejects its settings ({error}): check model.optimizer") from error
        total = self.schedule_steps()
        scheduler = LambdaLR(optimizer, lambda step: self.schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[Any]:
        """Return the optimizer's parameters: the trainable weights, or one group per learning rate."""
        return [p for p in self.parameters() if p.requires_grad]

    @property
    def fixed_groups(self) -> int:
        """Number of leading ``parameter_groups`` that this batch does not update; their gradients are 0."""
        return 0

    def steps_per_batch(self) -> int:
        """Return the number of optimizer steps per full training batch."""
        return 1

    def schedule_steps(self) -> int:
        """Return the length of the learning-rate schedule in optimizer steps."""
        if self.schedule.epochs is not None:
            return max(1, round(self.schedule.epochs * len(self.problems.train_dataloader()) * self.steps_per_batch()))
        limit = self.trainer.max_steps if self.trainer.max_steps > 0 else float("inf")
        # Lightning assumes one optimizer step per batch: its estimate is the smaller of max_steps and the number of batches.
        steps = min(limit, self.trainer.estimated_stepping_batches * self.steps_per_batch())
        if steps == float("inf"):
            if self.schedule.kind == "linear" or self.schedule.warmup:
                raise UserError("the learning-rate schedule has no end: set model.schedule.epochs or trainer.max_epochs")
            return 1
        return max(1, int(steps))

    def update(self, micro_batches: MicroBatches) -> dict[str, float]:
        """Take one optimizer step on the sum of the micro-batch losses, averaged over ranks.

        Gradients accumulate in the dtype of the weights, so the number of micro-batches affects rounding. It is negligible in
        float32. In bfloat16 the relative error of one linear layer's gradient (64 x 64) grew from 0.2% with one micro-batch
        to 0.9% with 64.

        If loss or gradient is not finite on any rank, all ranks skip the step: weights and optimizer do not change.

        Returns:
            ``loss`` and ``gradient_norm`` (before clipping), both over all ranks, and ``skipped`` (0 or 1).
        """
        optimizer = cast("torch.optim.Optimizer", self.optimizers())
        optimizer.zero_grad()
        self._rate = optimizer.param_groups[0]["lr"]
        total = torch.zeros((), device=self.device)
        passes = self.ranks.even(micro_batches, self.idle_loss)
        with gradients.one_update(self.trainer.strategy, self.used_in_parts()):
            for index, micro_batch in enumerate(passes):
                loss = gradients.one_pass(self, micro_batch, last=index == len(passes) - 1)
                total += loss.detach().float()
            total = self.ranks.sum(total) / self.ranks.size
            norm = gradients.clip(self, self.gradient_clip_norm)
            finite = bool(torch.isfinite(total) & torch.isfinite(norm))
            if finite:
                gradients.fix(optimizer.param_groups[: self.fixed_groups])
                optimizer.step()
                if self.average is not None:
                    self.average.update()
                cast("LambdaLR", self.lr_schedulers()).step()
            else:
                rank_zero_warn(f"skipped an optimizer step: loss {float(total)}, gradient norm {float(norm)}")
                gradients.drop(self)
        optimizer.zero_grad()
        return {"loss": float(total), "gradient_norm": float(norm), "skipped": float(not finite)}

    def log_statistics(self, statistics: Mapping[str, float]) -> None:
        """Log the statistics of one training batch, already reduced over ranks, by TensorBoard name."""
        self.log_dict({**statistics, "lr": self._rate}, on_step=True, on_epoch=False, batch_size=1)

    def kept(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights to keep in a checkpoint; ``strict_loading`` is false if some are left out."""
        return dict(state)

    def timing(self) -> dict[str, float]:
        """Return ``seconds/*`` of the slowest rank and ``tokens_per_second/*`` of all ranks since the last call."""
        of_ranks = self.ranks.gather(self.phases.take())
        names = dict.fromkeys(name for figures in of_ranks for name in figures)
        return {n: (max if n.startswith("seconds/") else sum)([f.get(n, 0.0) for f in of_ranks]) for n in names}

    def on_train_start(self) -> None:
        """Set the optimizer's learning rate from the schedule, because not every strategy restores it from a checkpoint."""
        optimizer, schedule = cast("torch.optim.Optimizer", self.optimizers()), cast("LambdaLR", self.lr_schedulers())
        for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        if self.average is not None:
            self.average.start()

    def on_validation_start(self) -> None:
        """Validate the average of the weights."""
        if self.average is not None:
            self.average.enter()

    def on_validation_end(self) -> None:
        """Resume training with the current weights; by now ``best.ckpt`` is saved."""
        if self.average is not None:
            self.average.leave()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the stage that wrote the checkpoint."""
        checkpoint["reft_stage"] = self.stage
        if self.average is not None:
            self.average.write_into(checkpoint)
        if "state_dict" in checkpoint:  # absent under ZeRO, where each rank writes its own part
            checkpoint["state_dict"] = self.kept(checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another stage, with other optimizer state and counters, or of another model.

        Any other strategy resumes from a ZeRO checkpoint without the optimizer states, which are in DeepSpeed's format.

        Raises:
            UserError: stage or weights do not fit, or a weight is not finite.
        """
        stage = checkpoint.get("reft_stage", "another program")
        if stage != self.stage:
            raise UserError(
                f"the checkpoint was written by {stage!r}, not by {self.stage!r}: to start from its weights set "
                f"--model.policy.init_from to the hf/ folder of that run"
            )
        if self.trainer.training and self.average is not None:
            self.average.read_from(checkpoint)
        if self.trainer.training and "reft_ranks" in checkpoint and not isinstance(self.trainer.strategy, ZeRO):
            warn_of_lost_optimizer_state(Path(str(self.trainer.ckpt_path)), "ZeRO")
            checkpoint["optimizer_states"] = []
        if "state_dict" not in checkpoint:  # sharded weights, which the strategy has checked and loaded
            return
        refuse_not_finite(str(self.trainer.ckpt_path), checkpoint["state_dict"])
        with whole_weights(self.trainer.strategy):
            here, there = (
                {name: tuple(t.shape) for name, t in state.items()}
                for state in map(self.kept, (self.state_dict(), checkpoint["state_dict"]))
            )
        for name in here | there:
            if here.get(name) != there.get(name):
                raise UserError(
                    f"{self.trainer.ckpt_path} holds another model ({name}: {there.get(name, 'absent')} there, "
                    f"{here.get(name, 'absent')} here): use the config and --run_dir of the run that wrote it"
                )
