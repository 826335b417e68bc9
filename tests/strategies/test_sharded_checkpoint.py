"""DeepSpeed checkpoint folders: what a run writes is readable, and pickled code is refused by every reader."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from reft_pl.errors import UserError
from reft_pl.modules.checkpoints import AtomicCheckpointIO
from reft_pl.strategies.sharded_checkpoint import _convert, read_weights, stored_client_state
from tests.payload import Payload

from .runs import apart, flat, forked, joined, weights

FILES = ["zero_pp_rank_0_mp_rank_00_model_states.pt", "mp_rank_00_model_states.pt"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("read", [stored_client_state, read_weights, AtomicCheckpointIO().load_checkpoint])
def test_no_reader_of_a_folder_runs_its_code(file: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    folder, ran = tmp_path / "evil.ckpt", tmp_path / "ran"
    (folder / "checkpoint").mkdir(parents=True)
    torch.save({"module": {}, "x": Payload(os.mkdir, str(ran))}, folder / "checkpoint" / file)
    (folder / "latest").write_text("checkpoint")
    with pytest.raises(UserError, match="could run code") as caught:
        read(folder)
    assert not ran.exists()
    assert "weights_only" not in str(caught.value)


def test_a_folder_with_other_content_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    for content in ([1], {"module": {}}):
        torch.save(content, tmp_path / "checkpoint" / FILES[1])
        with pytest.raises(UserError, match="is not a checkpoint of a run"):
            stored_client_state(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_resumes_moves_and_is_tested_unless_a_part_holds_code(
    strategy: str, dtype: str, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    further = ["--data.format", "NaturalLanguage", "--model.policy.dtype", dtype, "--data.validation", "null"]

    def command(verb: str, run: str, *more: str, plain: bool = True) -> list[str]:
        return arguments(verb, strategy, run, *further, *more, stage="sft", plain=plain)

    commands = [command("fit", "whole"), command("fit", "halves", "--trainer.max_epochs", "1")]
    forked("commands", 2, *joined(*commands), folder=tmp_path)
    for name in ("moved", "hostile"):
        shutil.copytree(tmp_path / "halves", tmp_path / name)
    forked("commands", 2, *command("fit", "halves"), folder=tmp_path)
    moved = forked("commands", 1, *command("fit", "moved", "--trainer.devices", "1"), folder=tmp_path)
    assert "the optimizer state is not" not in moved, "by a universal checkpoint"
    whole = flat(weights(tmp_path / "whole"))
    assert torch.equal(whole, flat(weights(tmp_path / "halves")))
    assert apart(whole, flat(weights(tmp_path / "moved"))) < (1e-4 if dtype == "float32" else 5e-2)
    last = tmp_path / "hostile" / "checkpoints" / "last.ckpt"
    forked("commands", 1, *command("test", "hostile", "--ckpt_path", str(last), "--trainer.devices", "1"), folder=tmp_path)

    ran = tmp_path / "ran"
    for part in sorted(last.rglob("*.pt")):
        kept = part.read_bytes()
        assert all(name.startswith("deepspeed.") for name in get_unsafe_globals_in_checkpoint(part))
        torch.save(torch.load(part, weights_only=False) | {"x": Payload(os.mkdir, str(ran))}, part)
        with pytest.raises(UserError, match="could run code"):
            read_weights(last)
        obstacle = _convert(last / "checkpoint", tmp_path / "copy" / "checkpoint")
        assert obstacle is not None
        assert obstacle.refused
        part.write_bytes(kept)
    part = sorted(last.rglob("*optim_states.pt"))[1]
    torch.save(torch.load(part, weights_only=False) | {"x": Payload(os.mkdir, str(ran))}, part)
    for ranks in (2, 1):  # directly, and by a universal checkpoint
        refused = command("fit", "hostile", "--trainer.devices", str(ranks))
        output = forked("commands", ranks, *refused, folder=tmp_path, fails=True)
        assert "which could run code" in output
        assert "Traceback" not in output
        assert "weights_only" not in output
    assert not ran.exists()
