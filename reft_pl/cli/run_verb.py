"""Run a Lightning verb, and turn the exceptions of libraries into sentences."""

from __future__ import annotations

import sys
import traceback

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from torch._dynamo.exc import TorchDynamoException

from reft_pl.cli.allocator import keep_freed_memory
from reft_pl.cli.lightning_cli import ReftCLI
from reft_pl.cli.parser import resolve_configs
from reft_pl.cli.quiet import quieten
from reft_pl.cli.signals import requeue
from reft_pl.errors import UserError, first_line
from reft_pl.interruption import Interrupted, interruption


def run_verb(verb: str, args: list[str]) -> int:
    """Run a Lightning verb with a command line."""
    quieten()
    keep_freed_memory()
    argv, sys.argv = sys.argv, [sys.argv[0], verb, *args]  # Lightning launches the other local ranks with these
    try:
        ReftCLI([verb, *resolve_configs(args)])
    except SystemExit as stop:
        return int(stop.code or 0)
    except Interrupted as stop:
        stop.reported = getattr(rank_zero_only, "rank", 0) == 0
        if interruption.at_once is not None:
            interruption.at_once()
        if stop.signum == interruption.requeue_signal and stop.reported:
            stop.outcome += f"; {requeue()}"
        raise
    except Exception as error:
        sentence = user_error(error)
        if sentence is None:
            raise
        raise sentence from None  # it may be the error's own cause, and a cycle of causes would never end
    finally:
        sys.argv = argv
    return 0


def user_error(error: Exception) -> UserError | None:
    """Translate a library's exception that a user can act on; None for any other, which keeps its traceback."""
    if isinstance(error, MisconfigurationException):
        text = " ".join(str(error).split())
        if "No supported gpu backend" in text:
            text = (
                "trainer.accelerator is gpu, but there is no GPU: set --trainer.accelerator cpu, or use the overlay for CPU "
                "processes (configs/strategy/two_cpus.yaml)"
            )
        return UserError(text)
    if isinstance(error, PermissionError):
        return UserError(
            f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error}): change its permissions, or "
            f"name another folder"
        )
    if isinstance(error, TorchDynamoException):
        return UserError(f"layers cannot be compiled here ({first_line(error)}): set model.policy.compile to false")
    if isinstance(error, (ValueError, TypeError, RuntimeError)):
        return user_error_behind(error) or _refusal_of_lightning(error)
    return None


def user_error_behind(error: BaseException) -> UserError | None:
    """Return the ``UserError`` that a constructor raised and jsonargparse wrapped; None if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _refusal_of_lightning(error: BaseException) -> UserError | None:
    """Return a Trainer error, such as an unavailable accelerator, as one sentence."""
    frames = list(traceback.walk_tb(error.__traceback__))
    module = str(frames[-1][0].f_globals.get("__name__", ""))
    return UserError(" ".join(str(error).split())) if module.startswith("lightning.") else None
