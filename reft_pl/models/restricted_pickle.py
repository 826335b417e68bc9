"""Load pickled checkpoints without running code from them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from reft_pl.errors import UserError, first_line

_FORCED, _FORCED_OFF = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_NAMED = re.compile(r"GLOBAL (?P<name>[\w.]+) (?:was not an allowed global|\S+ module \S+ is blocked)")


@contextmanager
def restricted_loads(path: Path, allowed: Sequence[Any] = (), advice: str = "") -> Iterator[None]:
    """Force ``weights_only=True`` on every ``torch.load`` of this process inside the block, including calls in libraries.

    Args:
        path: File or folder being read, for error messages.
        allowed: Classes and functions that pickles may name besides tensors and plain values.
        advice: What to do about a rejected or damaged file, for error messages.

    Raises:
        UserError: A pickle names anything else, or is damaged.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCED, _FORCED_OFF)}
    os.environ[_FORCED] = "1"
    try:
        with safe_globals(list(allowed)):
            yield
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        refusal = _refusal(path, error, advice)
        if refusal is None:
            raise
        raise refusal from error
    finally:
        os.environ.pop(_FORCED)
        os.environ.update({name: value for name, value in before.items() if value is not None})


def load_restricted(path: Path, advice: str = "", *, mmap: bool = False) -> Any:
    """Read a ``torch.save`` file that holds only tensors and plain values.

    Args:
        path: The file.
        advice: What to do about a rejected or damaged file, for error messages.
        mmap: Memory-map tensors instead of reading them.

    Returns:
        The file's content, with tensors on the CPU.

    Raises:
        UserError: The file names code, or is damaged.
        OSError: The file cannot be read.
    """
    try:
        with restricted_loads(path, (), advice):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (UserError, OSError):
        raise
    except Exception as error:  # zip, pickle and torch each raise a different type
        raise UserError(_sentence(f"{path} is damaged or not a checkpoint ({first_line(error)})", advice)) from error


def refuse_code(folder: Path, allowed: Sequence[Any], advice: str = "") -> None:
    """Reject a folder if one of its ``.pt`` files names code outside ``allowed``, without loading any tensor.

    Every rank checks every file, so all ranks fail with the same error before any collective.

    Raises:
        UserError: A file names anything else, or is damaged.
    """
    for file in sorted(folder.rglob("*.pt")):
        try:
            with safe_globals(list(allowed)):
                unsafe = get_unsafe_globals_in_checkpoint(file)
        except OSError:
            raise
        except Exception as error:  # zip, pickle and torch each raise a different type
            raise UserError(_sentence(f"{file} is damaged or not a checkpoint", advice)) from error
        if unsafe:
            raise UserError(_of_code(file, min(unsafe), advice))


def _refusal(path: Path, error: Exception, advice: str) -> UserError | None:
    """Reword a restricted-load error, because torch's own message suggests disabling the check; None for other errors."""
    text = str(error)
    if not (isinstance(error, UnpicklingError) or "weights_only" in text):
        return None
    named = _NAMED.search(text)
    if named:
        return UserError(_of_code(path, named["name"], advice))
    return UserError(_sentence(f"{path} is damaged or not a checkpoint", advice))


def _of_code(path: Path, name: str, advice: str) -> str:
    return _sentence(
        f"{path} names {name}, which could run code and which no reft-pl checkpoint needs; nothing was run", advice
    )


def _sentence(what: str, advice: str) -> str:
    return f"{what}: {advice}" if advice else what
