"""Checkpoints that are folders, to which every rank writes its part."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from reft_pl.errors import UserError, described, of_files
from reft_pl.models.folders import replace_folder
from reft_pl.models.restricted_pickle import refuse_code, restricted_loads

if TYPE_CHECKING:
    from reft_pl.strategies.zero import ZeRO

TAG = "checkpoint"
"""The folder inside, as Lightning names it."""

ADVICE = "name another with --ckpt_path, or delete this one to start that run again"


def _written_by_deepspeed() -> list[Any]:
    """Classes that DeepSpeed's ZeRO-1 to ZeRO-3 store beside tensors and plain values; each holds settings or numbers."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler  # noqa: PLC0415 (takes seconds, and is only there on Linux)
    from deepspeed.runtime.zero.config import ZeroStageEnum  # noqa: PLC0415
    from deepspeed.utils.tensor_fragment import fragment_address  # noqa: PLC0415

    return [LossScaler, ZeroStageEnum, fragment_address]


def _restricted(path: Path) -> AbstractContextManager[None]:
    """A block in which DeepSpeed's own ``torch.load(weights_only=False)`` reads nothing but what it writes."""
    return restricted_loads(path, _written_by_deepspeed(), ADVICE)


def write_folder(strategy: ZeRO, checkpoint: dict[str, Any], path: Path) -> None:
    """Save this rank's part of a checkpoint. The folder appears when all parts are in it, or not at all."""
    client_state = {name: part for name, part in checkpoint.items() if name not in ("state_dict", "optimizer_states")}
    client_state |= {"reft_ranks": strategy.world_size, "reft_zero_stage": strategy.stage}
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
def _only_what_is_kept(strategy: ZeRO) -> Iterator[None]:
    """Let the module say of itself what a checkpoint of it holds; DeepSpeed keeps a frozen head that is tied."""
    module: Any = strategy.lightning_module

    def drop(_module: nn.Module, state: dict[str, Any], _prefix: str, _metadata: Any) -> None:
        for name in state.keys() - module.kept(state).keys():
            del state[name]

    hook = module.register_state_dict_post_hook(drop)
    try:
        yield
    finally:
        hook.remove()


def read_client_state(strategy: ZeRO, path: Path) -> dict[str, Any]:
    """Load this rank's part into DeepSpeed's engine, and give back what Lightning saved.

    Another number of ranks goes on by DeepSpeed's universal checkpoints. Where another stage or strategy wrote it, or an
    optimizer that these do not know, weights and the run's place are taken over and the optimizer begins anew, which is said.
    """
    if not path.is_dir():
        checkpoint = strategy.checkpoint_io.load_checkpoint(path)
        say_averages_begin_anew(path, "another strategy")
        return {name: part for name, part in checkpoint.items() if name != "optimizer_states"}
    before = stored_client_state(path)
    ranks, stage = before["reft_ranks"], before["reft_zero_stage"]
    if (ranks, stage) == (strategy.world_size, strategy.stage):
        module: Any = strategy.lightning_module
        with _restricted(path):
            loaded, client_state = strategy.deepspeed_engine.load_checkpoint(
                str(path), tag=TAG, load_module_strict=module.strict_loading, load_lr_scheduler_states=False
            )
        if loaded is None:
            raise UserError(f"{path} is damaged, or no checkpoint: {ADVICE}")
        return dict(client_state)
    writer = f"ZeRO-{stage} on {ranks} ranks"
    if stage == strategy.stage:
        obstacle = _load_universal(strategy, path)
        if obstacle is None:
            rank_zero_info(f"{path} was written by {ranks} ranks and goes on on {strategy.world_size}")
            return before
        writer += f", of which DeepSpeed makes no universal checkpoint ({obstacle})"
    say_averages_begin_anew(path, writer)
    return before | read_weights(path)


def _load_universal(strategy: ZeRO, path: Path) -> str | None:
    """Load a folder that another number of ranks wrote, by a copy with whole tensors; returns why DeepSpeed can make none.

    Raises:
        UserError: the copy could not be written, as on a full disk. What resumes is as it was.
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
        strategy.weights_were_loaded()
    strategy.barrier()
    if strategy.is_global_zero:
        shutil.rmtree(whole, ignore_errors=True)
    if error is not None and error.refused:
        raise UserError(error.text)
    if error is not None and error.of_files:
        raise UserError(
            f"{path} must be copied for another number of ranks, but cannot be ({error.text}): make room in {path.parent}, "
            f"twice what {path.name} takes, or go on with as many devices as before"
        )
    return None if error is None else error.text


class _Obstacle(NamedTuple):
    """Why there is no copy: the disk (``of_files``), code in the checkpoint (``refused``), or something missing in it."""

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
        ):  # it reports each of its steps
            ds_to_universal.main(settings)
    except UserError as error:  # raised on every rank, once the others know
        return _Obstacle(str(error), refused=True)
    except Exception as error:  # whatever it finds missing
        return _Obstacle(described(error), of_files(error))
    return None


def stored_client_state(path: Path) -> dict[str, Any]:
    """What Lightning saved in a folder, weights and optimizer states apart.

    Raises:
        UserError: it is no such folder, or one of its files names code.
    """
    parts = sorted((path / TAG).glob("*mp_rank_00_model_states.pt"))
    if not parts:
        raise UserError(f"{path} is damaged, or no checkpoint: {ADVICE}")
    refuse_code(path, _written_by_deepspeed(), ADVICE)
    with _restricted(path):
        stored: Any = torch.load(parts[0], map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(stored, dict) or not {"module", "reft_ranks", "reft_zero_stage"} <= stored.keys():
        raise UserError(f"{path} is no checkpoint of a run: {ADVICE}")
    own = {"module", "optimizer", "lr_scheduler", "buffer_names", "param_shapes", "frozen_param_shapes", "shared_params"}
    return {name: part for name, part in stored.items() if name not in own}


def read_weights(path: Path) -> dict[str, Any]:
    """The whole weights of a folder, put together from all ranks' parts, as a checkpoint of weights alone."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint  # noqa: PLC0415

    client_state = stored_client_state(path)
    with _restricted(path):
        weights = get_fp32_state_dict_from_zero_checkpoint(str(path), tag=TAG)
    return client_state | {"state_dict": {name: tensor.clone() for name, tensor in weights.items()}}


def say_averages_begin_anew(path: Path, writer: str) -> None:
    """Say what of a checkpoint goes on where another ``writer`` shared other parts out, and what does not."""
    rank_zero_warn(
        f"{path} was written by {writer}: weights, schedule and the place in the data go on from it, but the optimizer's "
        f"averages begin anew; take that strategy and number of ranks to go on exactly"
    )
