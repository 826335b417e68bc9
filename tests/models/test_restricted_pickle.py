"""Pickles that would run code if loaded without restrictions."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.cloud_io import _load

from reft_pl.errors import UserError
from reft_pl.models.restricted_pickle import load_restricted, refuse_code, restricted_loads
from tests.payload import Payload


def as_zip(content: object, file: Path) -> None:
    torch.save(content, file)


def as_old_format(content: object, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def as_plain_pickle(content: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))


def as_tar(content: object, file: Path) -> None:
    """The format of torch before 0.1.10."""
    member = file.with_name("pickle")
    member.write_bytes(pickle.dumps(content))
    with tarfile.open(file, "w:") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.add(member, name)


@pytest.mark.parametrize("save", [as_zip, as_old_format, as_plain_pickle, as_tar])
@pytest.mark.parametrize("place", ["state_dict", "callbacks", "loops", "optimizer_states"])
def test_a_file_that_names_code_is_refused_in_one_sentence(
    save: Callable[[object, Path], None], place: str, tmp_path: Path
) -> None:
    file, ran = tmp_path / "x.ckpt", tmp_path / "ran"
    save({"state_dict": {}, **{place: {"x": Payload(os.mkdir, str(ran))}}}, file)
    with pytest.raises(UserError) as caught:
        load_restricted(file, "name another")
    text = str(caught.value)
    assert not ran.exists()
    assert text.startswith(str(file))
    assert text.endswith(": name another")
    assert "weights_only" not in text
    assert "safe_globals" not in text
    assert "\n" not in text


@pytest.mark.parametrize("function", [os.system, eval, getattr, print, Path, torch.load, torch.hub.load])
def test_no_function_is_called(function: Callable[..., object], tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(function, "x")}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="could run code"):
        load_restricted(tmp_path / "x.ckpt")


def test_loads_of_libraries_are_restricted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file, ran = tmp_path / "x.pt", tmp_path / "ran"
    torch.save({"x": Payload(os.mkdir, str(ran))}, file)
    for weights_only in (False, None):
        with pytest.raises(UserError, match="could run code"), restricted_loads(file):
            _load(file, weights_only=weights_only)
    assert not ran.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_allowed_globals_are_allowed_only_within_the_block(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"x": Payload(timedelta, 1, 2), "t": torch.ones(2)}, file)
    refuse_code(tmp_path, [timedelta])
    with restricted_loads(file, [timedelta]):
        assert torch.load(file, weights_only=False)["x"] == timedelta(1, 2)
    with pytest.raises(UserError, match=r"datetime\.timedelta"):
        refuse_code(tmp_path, [])
    with pytest.raises(UserError, match="could run code"):
        load_restricted(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"no pickle at all"])
def test_a_damaged_file_is_one_sentence_without_advice_to_trust_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    for read in (load_restricted, lambda file: refuse_code(file.parent, [])):
        with pytest.raises(UserError, match="is damaged or not a checkpoint") as caught:
            read(tmp_path / "x.pt")
        assert "weights_only" not in str(caught.value)


def test_unrelated_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), restricted_loads(tmp_path):
        raise RuntimeError("mine")
    with pytest.raises(FileNotFoundError):
        load_restricted(tmp_path / "absent.ckpt")
