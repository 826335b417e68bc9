"""DeepSpeed's ZeRO as training here needs it: on CPU ranks too, with whole weights to sample with, and whole checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from reft_pl.errors import UserError
from reft_pl.models.compilation import compiled_layers
from reft_pl.strategies.sharded_checkpoint import drop_master_weights, read_client_state, read_weights, write_folder

KEPT = -1
"""Stands among the modules that use a parameter, so that DeepSpeed does not release it."""


class BatchesAsTheyAre(DeepSpeedPrecision):
    """Lightning's part in DeepSpeed's precision, which leaves batches alone: they are problems, not tensors."""

    def convert_input(self, data: Any) -> Any:
        """The batch itself."""
        return data


class ZeRO(DeepSpeedStrategy):
    """Share optimizer states, gradients and weights out over the ranks (ZeRO, arXiv 1910.02054), by DeepSpeed.

    On CUDA this is Lightning's strategy; where there is no GPU, ranks are CPU processes that talk through gloo. It is for
    training: validate, test and predict run whole weights on every rank. The float32 copies of bfloat16 weights are DeepSpeed's
    and shared out as well; the optimizer sees these, so that MasterAdamW keeps none of its own (but where it
    offloads: then it steps copies in the computer's memory, beside its averages).

    ZeRO-3 gathers all weights to sample and to score rollouts, and one layer after another in updates. Nothing is fetched
    ahead there: the order of layers differs from step to step, and must not differ between ranks.

    Args:
        stage: 1 shares out optimizer states, 2 gradients too, 3 weights too.
        persistent_elements: Weights of at most so many elements stay whole on every rank (stage 3).
    """

    strategy_name = "zero"

    def __init__(
        self,
        stage: Literal[1, 2, 3] = 2,
        persistent_elements: int = 100_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            stage=stage,
            offload_optimizer=False,  # DeepSpeed does so with its own optimizers alone; MasterAdamW can offload itself
            offload_parameters=False,
            logging_batch_size_per_gpu=1,
            **kwargs,
        )
        self.stage = stage
        self._whole = 0
        self._settings["zero_optimization"]["stage3_param_persistence_threshold"] = persistent_elements

    @property
    def _settings(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.config)

    @property
    def is_training(self) -> bool:
        """Whether weights, gradients or optimizer states are shared out now."""
        return self.lightning_module is not None and self.lightning_module.trainer.state.fn == TrainerFn.FITTING

    # ---- what Lightning refuses without a GPU

    def setup_environment(self) -> None:
        """Set up devices and process group, on whatever accelerator there is."""
        super(DeepSpeedStrategy, self).setup_environment()

    @property
    def root_device(self) -> torch.device:
        """This rank's device; DeepSpeed wants a CPU's to have an index."""
        device = super().root_device
        return torch.device("cpu", self.local_rank) if device.type == "cpu" else device

    def setup_distributed(self) -> None:
        """Begin the process group."""
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_distributed()
            return
        import deepspeed  # noqa: PLC0415 (takes seconds, and is only there on Linux)

        # Its own sums between CPU processes, which it would first compile, for minutes: gloo's do.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    # ---- training

    def model_sharded_context(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Weights are loaded whole, as any checkpoint has them, and shared out when training is set up."""
        return nullcontext()

    def setup(self, trainer: Trainer) -> None:
        """Give model and optimizer to DeepSpeed, if they are trained."""
        self.precision_plugin = BatchesAsTheyAre("32-true")
        if not self.is_training:
            DDPStrategy.setup(self, trainer)
            return
        module: Any = self.lightning_module
        if self.stage == 3 and compiled_layers(module):
            raise UserError("ZeRO-3 fetches weights in the midst of a layer: set model.policy.compile to false, or take ZeRO-2")
        # Lightning would have it from Trainer(gradient_clip_val=...), which manual optimization refuses.
        self._settings["gradient_clipping"] = module.gradient_clip_norm
        if any(p.dtype == torch.bfloat16 for p in module.parameters()):
            self._settings["bf16"] = {"enabled": True}
        super().setup(trainer)

    def begin_pass(self, last: bool) -> None:
        """A forward and backward pass begins, of which ``last`` is the last before the optimizer's step.

        DeepSpeed takes a call of its engine for this; here one training step is one call, whatever it does.
        """
        self.deepspeed_engine.set_gradient_accumulation_boundary(last)
        self.deepspeed_engine.optimizer.clear_backward_seen_flag()

    def gradient_norm(self) -> Tensor:
        """Norm of the gradient that all ranks have together, averaged, before clipping; infinite where it is not finite."""
        optimizer = self.deepspeed_engine.optimizer
        # On every rank: each has the norm of its own part, and DeepSpeed adds them up.
        norms = optimizer._get_norm_groups() if self.stage == 3 else [optimizer.scaled_global_norm()]
        norm = torch.stack([torch.as_tensor(norm, device=self.root_device).float() for norm in norms])
        # DeepSpeed says -1 of a norm that is not finite.
        return torch.where((norm >= 0).all(), torch.linalg.vector_norm(norm), torch.full_like(norm[0], torch.inf))

    def drop_gradients(self) -> None:
        """Forget gradients that are not finite: a step of DeepSpeed's without any effect."""
        self.deepspeed_engine.step()

    # ---- whole weights

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """All weights on every rank, and no exchange while they are used; may be nested."""
        if not (self.is_training and self.stage == 3) or self._whole:
            yield
            return
        import deepspeed  # noqa: PLC0415 (takes seconds, and is only there on Linux)

        offload = self._forget_order()
        with deepspeed.zero.GatheredParameters(list(self.deepspeed_engine.module.parameters())):
            # Without hooks, which would release a layer after its use, so that ranks wait for each other to fetch it again.
            for hooks in (offload.forward_hooks, offload.backward_hooks):
                for hook in hooks:
                    hook.remove()
                hooks.clear()
            self._whole += 1
            try:
                yield
            finally:
                self._whole -= 1
                offload._register_deepspeed_module(offload.module)
        self._forget_order()

    @contextmanager
    def one_update(self, kept: Iterable[nn.Parameter]) -> Iterator[None]:
        """An optimizer step. ``kept`` stays whole during it: what ranks use different numbers of times in a pass."""
        if not (self.is_training and self.stage == 3):
            yield
            return
        self._forget_order()
        parameters: list[Any] = list(kept)
        if parameters:
            parameters[0].all_gather(parameters)
        for parameter in parameters:
            parameter.ds_active_sub_modules.add(KEPT)
        yield  # DeepSpeed's step shares out everything again

    def _forget_order(self) -> Any:
        """Let DeepSpeed forget the order of layers that it has seen, and thus fetch nothing ahead."""
        offload = self.deepspeed_engine.optimizer.parameter_offload
        coordinator = offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()
        return offload

    # ---- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights; in training they are left to ``save_checkpoint``, which knows whether they are wanted whole."""
        return {} if self.is_training else super().lightning_module_state_dict()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Nothing: DeepSpeed saves each rank's part by itself."""
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None) -> None:
        """Weights alone go to one plain file, which every strategy reads; what resumes to a folder of the ranks' parts."""
        path = Path(self.broadcast(str(filepath)))
        if "optimizer_states" in checkpoint:
            write_folder(self, self.stage, checkpoint, path)
            return
        with self.whole_weights():
            if self.is_global_zero:
                module: Any = self.lightning_module
                weights = module.kept(module.state_dict())
                self.checkpoint_io.save_checkpoint({**checkpoint, "state_dict": weights}, path)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; a folder of parts gives weights and optimizer states to DeepSpeed at once."""
        path = Path(checkpoint_path)
        if not self.is_training:
            return read_weights(path) if path.is_dir() else self.checkpoint_io.load_checkpoint(path)
        return read_client_state(self, self.stage, path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole weights; those of a folder are there already."""
        if "state_dict" not in checkpoint:
            return
        module = cast("nn.Module", self.lightning_module)
        if not self.is_training:
            module.load_state_dict(checkpoint["state_dict"], strict=strict)
            return
        import deepspeed  # noqa: PLC0415 (takes seconds, and is only there on Linux)

        with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=0, enabled=self.stage == 3):
            module.load_state_dict(checkpoint["state_dict"], strict=strict)
        self.deepspeed_engine.optimizer.refresh_fp32_params()  # the optimizer works on copies
        drop_master_weights(self)


def whole_weights(strategy: Strategy) -> AbstractContextManager[None]:
    """A block in which every rank has all weights; ranks may use them as often as each likes."""
    return strategy.whole_weights() if isinstance(strategy, ZeRO) else nullcontext()
