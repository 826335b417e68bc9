"""`reft-pl recipes`: list the shipped configs with their purpose and needs, or print one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError
from reft_pl.resources import HUB_ID
from reft_pl.terminal import echo

WIDTH = 100
"""Longest line of the list, in characters."""

_TITLES = ("CONFIG", "PURPOSE", "NEEDS")
_NEEDS = 24  # characters of its column
_SENTENCE = re.compile(r"(?:(?<!Dr)\.|:)(?=\s|$)")
_AFTER = re.compile(r"\b(?:after|needs) (?:configs/)?([\w/]+)\.yaml")
_PUBLISHED = re.compile(r"--ckpt_path [\w-]+/")
_FOLDERS = ("configs", "data", "models", "runs")
_REFERENCE = re.compile(r" \((?:arXiv|`make)[^)]*\)")
_RUN = re.compile(r"runs/[\w-]+")
_LEGEND = (
    "Configs in folders are overlays: name them after a stage, as in\n"
    "  reft-pl fit --config configs/sft.yaml --config configs/data/svamp_python.yaml\n"
    "`reft-pl recipes NAME` prints a config."
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A shipped config: its name without ``configs/`` and ``.yaml``, the first sentence of its header, and its needs."""

    name: str
    purpose: str
    needs: tuple[str, ...]
    text: str

    @property
    def line(self) -> str:
        """The name, the header's first paragraph and the needs, in lower case, to search for words."""
        return " ".join([self.name, header(self.text.split("\n#\n")[0]), *self.needs]).lower()


def main(args: list[str]) -> int:
    """List the shipped configs or print one; return the exit code."""
    parser = CommandParser(
        "reft-pl recipes",
        description="List the shipped configs: what each is for, and what it needs beforehand. Print one if WORD is its name.",
    )
    words = parser.add_argument(
        "words", nargs="*", metavar="WORD", help="name of a config to print, or words that the listed configs contain"
    )
    words.completer = lambda **_: [recipe.name for recipe in recipes()]  # type: ignore[attr-defined]
    options = parser.parse_args(args)
    found = list(recipes())
    if len(options.words) == 1 and (named := _named(options.words[0], found)):
        echo(named.text.rstrip("\n"), lines=True)
        return 0
    listed = [recipe for recipe in found if all(word.lower() in recipe.line for word in options.words)]
    if not listed:
        raise UserError(f"no shipped config contains {' '.join(options.words)!r}: `reft-pl recipes` lists them all")
    for line in table(listed):
        echo(line)
    echo()
    echo(_LEGEND, lines=True)
    return 0


def recipes() -> Iterator[Recipe]:
    """Yield the shipped configs: stages first, then overlays by folder."""
    root = Path(str(files("reft_pl_configs")))
    paths = sorted(root.rglob("*.yaml"), key=lambda path: (len(path.relative_to(root).parts) > 1, str(path)))
    for path in paths:
        name, text = path.relative_to(root).with_suffix("").as_posix(), path.read_text(encoding="utf-8")
        yield Recipe(name, purpose(text), needs(name, text), text)


def header(text: str) -> str:
    """Return the comment at the start of a config, as one line."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(filter(None, lines))


def purpose(text: str) -> str:
    """Return the first sentence of a config's header, up to its first colon, without references."""
    sentence = _SENTENCE.split(header(text), maxsplit=1)[0]
    return _REFERENCE.sub("", sentence)


def needs(name: str, text: str) -> tuple[str, ...]:
    """Return what a config needs beforehand: configs, runs, models, files, packages and devices."""
    config, about = yaml.safe_load(text), header(text)
    texts = list(_texts(config))
    runs = [run[0] for key, value in texts if key != "run_dir" and (run := _RUN.match(value))]
    models = [value for key, value in texts if key == "init_from" and value.startswith("models/")]
    data = list(dict.fromkeys(value for _, value in texts if value.startswith("data/")))
    from_hub = [value for key, value in texts if key in ("init_from", "path") and _is_hub_id(value)]
    found = ["a PPO config"] if name.startswith("algorithms/") else _AFTER.findall(about)
    found += ["the hub"] * bool(from_hub or _PUBLISHED.search(about))
    found += [*runs, *models, *(data if len(data) < 2 else [f"{len(data)} files in data/"])]
    found += ["vLLM"] * any(key == "class_path" and value.startswith("VLLM") for key, value in texts)
    trainer = config.get("trainer", {})
    if trainer.get("accelerator") == "gpu":
        found.append({1: "1 GPU", "auto": "GPUs"}.get(trainer["devices"], f"{trainer['devices']} GPUs"))
    return tuple(dict.fromkeys(found))


def _is_hub_id(name: str) -> bool:
    """Return whether a model or dataset is neither a file of the user nor a shipped folder nor a run's."""
    return HUB_ID.fullmatch(name) is not None and name.partition("/")[0] not in _FOLDERS and "/" in name


def table(listed: list[Recipe]) -> Iterator[str]:
    """Yield the lines of the list: name, purpose and needs, in columns."""
    rows = [(recipe.name, recipe.purpose, shorten(", ".join(recipe.needs), _NEEDS, placeholder=" ...")) for recipe in listed]
    names, last = (max(len(row[column]) for row in [_TITLES, *rows]) for column in (0, 2))
    middle = WIDTH - names - last - 4
    for name, what, needed in [_TITLES, *rows]:
        yield f"{name:<{names}}  {_clause(what, middle):<{middle}}  {needed}".rstrip()


def _clause(sentence: str, width: int) -> str:
    """Shorten a sentence that is too long: at a comma if possible."""
    before = sentence[: width + 1].rpartition(", ")[0] if len(sentence) > width else sentence
    return before or shorten(sentence, width, placeholder=" ...")


def _named(name: str, found: list[Recipe]) -> Recipe | None:
    """Return the config of this name, which may begin with ``configs/`` and end with ``.yaml``."""
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    return next((recipe for recipe in found if recipe.name == plain), None)


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a config with its innermost key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
