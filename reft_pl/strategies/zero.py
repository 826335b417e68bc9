"""DeepSpeed ZeRO strategy with CPU ranks, gathered weights for sampling, and atomic checkpoints."""

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
"""Sentinel module id that prevents DeepSpeed from releasing a parameter."""


class BatchesAsTheyAre(DeepSpeedPrecision):
    """Precision plugin that does not convert batches: they are problems, not tensors."""

    def convert_input(self, data: Any) -> Any:
        """Return the batch unchanged."""
        return data


class ZeRO(DeepSpeedStrategy):
    """Shard optimizer states, gradients and weights over ranks with DeepSpeed (ZeRO, arXiv 1910.02054).

    On CUDA this is Lightning's strategy. Without a GPU, ranks are CPU processes that communicate through gloo. Only training
    is sharded: validate, test and predict keep whole weights on every rank.

    DeepSpeed keeps and shards the float32 master weights of bfloat16 weights and passes them to the optimizer, so MasterAdamW
    keeps none. The exception is an offloading MasterAdamW, which steps copies in CPU memory, next to its moments.

    ZeRO-3 gathers all weights to sample and to score rollouts, and layer by layer in updates. Prefetching is off, because
    the order of layers changes from step to step and must be the same on all ranks.

    Args:
        stage: 1 shards optimizer states, 2 also gradients, 3 also weights.
        persistent_elements: Weights with at most this many elements stay whole on every rank (stage 3).
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
            offload_optimizer=False,  # DeepSpeed offloads only its own optimizers; MasterAdamW has its own offloading
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
        """Whether a fit runs, so that optimizer states, gradients or weights are sharded."""
        return self.lightning_module is not None and self.lightning_module.trainer.state.fn == TrainerFn.FITTING

    # ---- setup without a GPU, which Lightning refuses

    def setup_environment(self) -> None:
        """Set up devices and process group on any accelerator."""
        super(DeepSpeedStrategy, self).setup_environment()

    @property
    def root_device(self) -> torch.device:
        """This rank's device; DeepSpeed requires an index for CPU devices."""
        device = super().root_device
        return torch.device("cpu", self.local_rank) if device.type == "cpu" else device

    def setup_distributed(self) -> None:
        """Initialize the process group."""
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_distributed()
            return
        import deepspeed  # noqa: PLC0415 (takes seconds, and is only there on Linux)

        # DeepSpeed would compile its own CPU collectives, which takes minutes; gloo's are enough.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    # ---- training

    def model_sharded_context(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Load weights whole; ``setup`` shards them for training."""
        return nullcontext()

    def setup(self, trainer: Trainer) -> None:
        """Hand model and optimizer to DeepSpeed for training.

        Raises:
            UserError: ZeRO-3 with compiled layers.
        """
        self.precision_plugin = BatchesAsTheyAre("32-true")
        if not self.is_training:
            DDPStrategy.setup(self, trainer)
            return
        module: Any = self.lightning_module
        if self.stage == 3 and compiled_layers(module):
            raise UserError(
                "ZeRO-3 gathers weights inside layers, which compiled layers do not allow: set model.policy.compile to false, "
                "or use ZeRO-2"
            )
        # Lightning takes it from Trainer(gradient_clip_val=...), which manual optimization does not allow.
        self._settings["gradient_clipping"] = module.gradient_clip_norm
        if any(p.dtype == torch.bfloat16 for p in module.parameters()):
            self._settings["bf16"] = {"enabled": True}
        super().setup(trainer)

    def begin_pass(self, last: bool) -> None:
        """Begin a forward and backward pass; ``last`` marks the last pass before the optimizer step.

        DeepSpeed detects passes by calls of its engine, but here one training step is a single call with many passes.
        """
        self.deepspeed_engine.set_gradient_accumulation_boundary(last)
        self.deepspeed_engine.optimizer.clear_backward_seen_flag()

    def gradient_norm(self) -> Tensor:
        """Return the norm of the averaged gradient of all ranks before clipping; infinite if it is not finite."""
        optimizer = self.deepspeed_engine.optimizer
        # Call it on every rank: DeepSpeed combines the norms of all parts.
        norms = optimizer._get_norm_groups() if self.stage == 3 else [optimizer.scaled_global_norm()]
        norm = torch.stack([torch.as_tensor(norm, device=self.root_device).float() for norm in norms])
        # DeepSpeed returns -1 for a norm that is not finite.
        return torch.where((norm >= 0).all(), torch.linalg.vector_norm(norm), torch.full_like(norm[0], torch.inf))

    def drop_gradients(self) -> None:
        """Discard non-finite gradients: DeepSpeed skips such a step and clears them."""
        self.deepspeed_engine.step()

    # ---- whole weights

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Gather all weights on every rank, with no communication inside the block; may be nested."""
        if not (self.is_training and self.stage == 3) or self._whole:
            yield
            return
        import deepspeed  # noqa: PLC0415 (takes seconds, and is only there on Linux)

        offload = self._forget_order()
        with deepspeed.zero.GatheredParameters(list(self.deepspeed_engine.module.parameters())):
            # Remove the hooks that release a layer after use: gathering it again would make ranks wait for each other.
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
        """Wrap an optimizer step; ``kept`` weights, which ranks use different numbers of times, stay gathered."""
        if not (self.is_training and self.stage == 3):
            yield
            return
        self._forget_order()
        parameters: list[Any] = list(kept)
        if parameters:
            parameters[0].all_gather(parameters)
        for parameter in parameters:
            parameter.ds_active_sub_modules.add(KEPT)
        yield  # DeepSpeed's step shards everything again

    def _forget_order(self) -> Any:
        """Invalidate DeepSpeed's trace of the layer order, so that it does not prefetch."""
        offload = self.deepspeed_engine.optimizer.parameter_offload
        coordinator = offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()
        return offload

    # ---- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the weights; empty in training, where ``save_checkpoint`` decides whether to gather them."""
        return {} if self.is_training else super().lightning_module_state_dict()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return nothing: DeepSpeed saves each rank's optimizer state itself."""
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None) -> None:
        """Save only weights to a plain file that any strategy reads, or a checkpoint for resuming to a sharded folder."""
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
        """Read a checkpoint; in training, weights and optimizer states of a sharded folder go directly to DeepSpeed."""
        path = Path(checkpoint_path)
        if not self.is_training:
            return read_weights(path) if path.is_dir() else self.checkpoint_io.load_checkpoint(path)
        return read_client_state(self, self.stage, path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole weights; weights of a sharded folder are already loaded."""
        if "state_dict" not in checkpoint:
            return
        module = cast("nn.Module", self.lightning_module)
        if not self.is_training:
            module.load_state_dict(checkpoint["state_dict"], strict=strict)
            return
        import deepspeed  # noqa: PLC0415 (takes seconds, and is only there on Linux)

        with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=0, enabled=self.stage == 3):
            module.load_state_dict(checkpoint["state_dict"], strict=strict)
        self.deepspeed_engine.optimizer.refresh_fp32_params()  # the optimizer steps float32 copies
        drop_master_weights(self)


def whole_weights(strategy: Strategy) -> AbstractContextManager[None]:
    """Gather all weights on every rank for a block, in which ranks may use them any number of times."""
    return strategy.whole_weights() if isinstance(strategy, ZeRO) else nullcontext()
