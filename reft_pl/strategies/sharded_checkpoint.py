"""Sharded checkpoints: folders to which every rank writes its part."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from reft_pl.errors import UserError, of_files, told
from reft_pl.models.folders import replace_folder
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.restricted_pickle import refuse_code, restricted_loads

TAG = "checkpoint"
"""Name of the inner folder, as Lightning names it."""

ADVICE = "name another with --ckpt_path, or delete this one to start that run again"


def _written_by_deepspeed() -> list[Any]:
    """Return the classes that DeepSpeed pickles in ZeRO checkpoints; they hold only settings or numbers."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler  # noqa: PLC0415 (takes seconds, and is only there on Linux)
    from deepspeed.runtime.zero.config import ZeroStageEnum  # noqa: PLC0415
    from deepspeed.utils.tensor_fragment import fragment_address  # noqa: PLC0415

    return [LossScaler, ZeroStageEnum, fragment_address]


def _restricted(path: Path) -> AbstractContextManager[None]:
    """Restrict DeepSpeed's ``torch.load(weights_only=False)`` to the classes that DeepSpeed writes."""
    return restricted_loads(path, _written_by_deepspeed(), ADVICE)


def write_folder(strategy: DeepSpeedStrategy, stage: int, checkpoint: dict[str, Any], path: Path) -> None:
    """Save this rank's part of a checkpoint; the folder appears atomically, with all parts."""
    client_state = {name: part for name, part in checkpoint.items() if name not in ("state_dict", "optimizer_states")}
    client_state |= {"reft_ranks": strategy.world_size, "reft_zero_stage": stage}
    with ExitStack() as stack:
        fresh = stack.enter_context(replace_folder(path)) if strategy.is_global_zero else None
        fresh = strategy.broadcast(fresh)
        with _only_what_is_kept(strategy):
            strategy.deepspeed_engine.save_checkpoint(
                str(fresh), client_state=client_state, tag=TAG, exclude_frozen_parameters=True
            )
        strategy.barrier()
    strategy.barrier()


@contextmanager
def _only_what_is_kept(strategy: DeepSpeedStrategy) -> Iterator[None]:
    """Apply ``StageModule.kept`` to the saved weights: DeepSpeed would keep a frozen tied head."""
    module: Any = strategy.lightning_module

    def drop(_module: nn.Module, state: dict[str, Any], _prefix: str, _metadata: Any) -> None:
        for name in state.keys() - module.kept(state).keys():
            del state[name]

    hook = module.register_state_dict_post_hook(drop)
    try:
        yield
    finally:
        hook.remove()


def read_client_state(strategy: DeepSpeedStrategy, stage: int, path: Path) -> dict[str, Any]:
    """Load this rank's part into DeepSpeed's engine, and return what Lightning saved.

    Another number of ranks resumes through DeepSpeed's universal checkpoints. If another ZeRO stage or strategy wrote the
    checkpoint, or an optimizer without support in universal checkpoints, weights and progress are restored. The optimizer
    state is then lost, with a warning.

    Raises:
        UserError: the checkpoint is damaged, or there is no room to convert it.
    """
    if not path.is_dir():
        checkpoint = strategy.checkpoint_io.load_checkpoint(path)
        warn_of_lost_optimizer_state(path, "another strategy")
        return {name: part for name, part in checkpoint.items() if name != "optimizer_states"}
    before = stored_client_state(path)
    ranks, stage_before = before["reft_ranks"], before["reft_zero_stage"]
    if (ranks, stage_before) == (strategy.world_size, stage):
        module: Any = strategy.lightning_module
        with _restricted(path):
            loaded, client_state = strategy.deepspeed_engine.load_checkpoint(
                str(path), tag=TAG, load_module_strict=module.strict_loading, load_lr_scheduler_states=False
            )
        if loaded is None:
            raise UserError(f"{path} is damaged, or not a checkpoint: {ADVICE}")
        return dict(client_state)
    writer = f"ZeRO-{stage_before} on {ranks} ranks"
    if stage_before == stage:
        obstacle = _load_universal(strategy, path)
        if obstacle is None:
            rank_zero_info(f"{path} was written by {ranks} ranks: resuming on {strategy.world_size}")
            return before
        writer += f", which DeepSpeed cannot convert to a universal checkpoint ({obstacle})"
    warn_of_lost_optimizer_state(path, writer)
    return before | read_weights(path)


def _load_universal(strategy: DeepSpeedStrategy, path: Path) -> str | None:
    """Load a folder that another number of ranks wrote, through a temporary copy with whole tensors.

    Returns:
        Why DeepSpeed cannot convert the folder, or None if it is loaded.

    Raises:
        UserError: the folder refers to code, or the copy cannot be written (a full disk). The checkpoint does not change.
    """
    whole = path.with_name(f".{path.name}.universal")
    error = strategy.broadcast(_convert(path / TAG, whole / TAG) if strategy.is_global_zero else None)
    if error is None:
        engine = strategy.deepspeed_engine
        engine._config.load_universal_checkpoint = True
        try:
            with _restricted(path):
                engine.load_checkpoint(str(whole), tag=TAG, load_lr_scheduler_states=False)
        finally:
            engine._config.load_universal_checkpoint = False
        drop_master_weights(strategy)
    strategy.barrier()
    if strategy.is_global_zero:
        shutil.rmtree(whole, ignore_errors=True)
    if error is not None and error.refused:
        raise UserError(error.text)
    if error is not None and error.of_files:
        raise UserError(
            f"{path} must be converted for another number of ranks, but its copy cannot be written ({error.text}): "
            f"make room in {path.parent} for twice the size of {path.name}, or resume with the previous number of devices"
        )
    return None if error is None else error.text


class _Obstacle(NamedTuple):
    """Why conversion failed: the disk (``of_files``), code in the checkpoint (``refused``), or missing content."""

    text: str
    of_files: bool = False
    refused: bool = False


def _convert(parts: Path, whole: Path) -> _Obstacle | None:
    from deepspeed.checkpoint import ds_to_universal  # noqa: PLC0415

    shutil.rmtree(whole.parent, ignore_errors=True)
    settings = Namespace(
        input_folder=str(parts), output_folder=str(whole), num_extract_workers=1, num_merge_workers=1,
        keep_temp_folder=False, strict=True, inject_missing_state=True,
    )  # fmt: skip
    try:
        whole.mkdir(parents=True)
        with (
            _restricted(parts.parent),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):  # it prints every step
            ds_to_universal.main(settings)
    except UserError as error:  # every rank raises it after the broadcast
        return _Obstacle(str(error), refused=True)
    except Exception as error:  # any kind of missing content
        return _Obstacle(told(error), of_files(error))
    return None


def drop_master_weights(strategy: DeepSpeedStrategy) -> None:
    """Drop the master weights of an offloading optimizer after loading weights without optimizer state."""
    optimizer = strategy.deepspeed_engine.basic_optimizer
    if isinstance(optimizer, MasterAdamW):
        optimizer.forget_masters()


def stored_client_state(path: Path) -> dict[str, Any]:
    """Read what Lightning saved in a folder, except weights and optimizer states.

    Raises:
        UserError: it is not a sharded checkpoint of a run, or one of its files refers to code.
    """
    parts = sorted((path / TAG).glob("*mp_rank_00_model_states.pt"))
    if not parts:
        raise UserError(f"{path} is damaged, or not a checkpoint: {ADVICE}")
    refuse_code(path, _written_by_deepspeed(), ADVICE)
    with _restricted(path):
        stored: Any = torch.load(parts[0], map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(stored, dict) or not {"module", "reft_ranks", "reft_zero_stage"} <= stored.keys():
        raise UserError(f"{path} is not a checkpoint of a run: {ADVICE}")
    own = {"module", "optimizer", "lr_scheduler", "buffer_names", "param_shapes", "frozen_param_shapes", "shared_params"}
    return {name: part for name, part in stored.items() if name not in own}


def read_weights(path: Path) -> dict[str, Any]:
    """Merge the parts of all ranks into whole float32 weights; return a checkpoint without optimizer states."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint  # noqa: PLC0415

    client_state = stored_client_state(path)
    with _restricted(path):
        weights = get_fp32_state_dict_from_zero_checkpoint(str(path), tag=TAG)
    return client_state | {"state_dict": {name: tensor.clone() for name, tensor in weights.items()}}


def warn_of_lost_optimizer_state(path: Path, writer: str) -> None:
    """Warn that a checkpoint of another ``writer`` resumes without optimizer state."""
    rank_zero_warn(
        f"{path} was written by {writer}: weights, schedule and position in the data are restored, but the optimizer state "
        f"is not; use that strategy and number of ranks to resume exactly"
    )
