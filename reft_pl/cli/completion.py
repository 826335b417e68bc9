"""Answer a shell's request to complete a `reft-pl` command line (argcomplete's protocol)."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from reft_pl.cli import OF_THIS_PACKAGE, VERBS
from reft_pl.commands import COMMANDS
from reft_pl.commands.command_parser import complete
from reft_pl.resources import cache_dir

MODULES = ("SFTModule", "PPOModule", "OnlineSelfTrainingModule", "RerankerModule", "SamplingModule")
"""Classes that ``model`` can name, which have the keys under it."""
OF_MEMORY = ("gpus", "gpu_memory", "model_config")
"""Options of ``reft-pl memory`` besides those of ``fit``."""


def complete_command_line(run: Callable[[str, list[str]], int]) -> None:
    """Print the completions and exit; do nothing if argcomplete is not installed.

    Args:
        run: Runs a small command, given its name and arguments, up to its parser.
    """
    try:
        from argcomplete.lexers import split_line  # noqa: PLC0415 (optional)
    except ImportError:
        return
    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]
    names = sorted((*VERBS, *OF_THIS_PACKAGE, *COMMANDS))
    if len(words) < 2:
        parser = ArgumentParser()
        parser.add_argument("command", choices=[*names, "--version"])
        complete(parser, words=1)
    elif words[1] in (*VERBS, "memory") and words[-1] in ("-c", "--config"):
        parser = ArgumentParser(add_help=False)
        parser.add_argument("config").completer = configs  # type: ignore[attr-defined]
        complete(parser, words=len(words))
    elif words[1] in (*VERBS, "memory"):
        complete(parser_of([*cached_keys(), *OF_MEMORY] if words[1] == "memory" else cached_keys()), words=2)
    elif words[1] in names:
        run(words[1], [])


def configs(prefix: str, **_: Any) -> list[str]:
    """Return the shipped configs, and the YAML files and folders of the working folder, that begin with ``prefix``."""
    from argcomplete.completers import FilesCompleter  # noqa: PLC0415 (optional)

    from reft_pl.commands.recipes import recipes  # noqa: PLC0415 (reads every config)

    asked = prefix.startswith("configs/") or "configs/".startswith(prefix)
    shipped = [f"configs/{recipe.name}.yaml" for recipe in recipes()] if asked else []
    return sorted({*shipped, *FilesCompleter(("yaml", "yml"))(prefix)})


def parser_of(keys: Iterable[str]) -> ArgumentParser:
    """Return a parser of these keys, which takes a value for each."""
    parser = ArgumentParser(allow_abbrev=False)
    for key in keys:
        parser.add_argument(f"--{key}", action="append")
    return parser


def cached_keys() -> list[str]:
    """Return the keys that verbs take.

    Finding them imports torch and Lightning, so they are kept in a file of the user's cache until the package changes.
    """
    path = cache_dir() / "completions.txt"
    package = Path(str(files("reft_pl")))
    stamp = str(max(file.stat().st_mtime for file in package.rglob("*.py")))
    with suppress(OSError, UnicodeDecodeError):
        kept, *keys = path.read_text(encoding="utf-8").splitlines()
        if kept == stamp:
            return keys
    keys = find_keys()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([stamp, *keys]), encoding="utf-8")
    return keys


def find_keys() -> list[str]:
    """Return the keys that verbs take, from the signatures of the classes that configs name."""
    from reft_pl.cli.setting_types import settings_of  # noqa: PLC0415 (imports torch and Lightning)

    sections = {
        "trainer": ["lightning.pytorch.Trainer"],
        "data": ["reft_pl.data.datamodule.ReasoningDataModule"],
        "checkpoints": ["reft_pl.modules.checkpoints.RunCheckpoints"],
        "model": [f"reft_pl.modules.{name}" for name in MODULES],
    }
    nested = {f"{section}.{key}" for section, paths in sections.items() for path in paths for key in settings_of(path)}
    return ["config", "run_dir", "seed_everything", "ckpt_path", "print_config", *sorted(nested)]
