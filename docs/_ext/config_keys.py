"""The configuration reference: keys, types and defaults from signatures, descriptions from docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import docstring_parser
import reft_pl_callbacks

import reft_pl

SECTIONS: dict[str, tuple[str, ...]] = {
    "Modules": ("SFTModule", "PPOModule", "OnlineSelfTrainingModule", "RerankerModule", "SamplingModule"),
    "Policy, optimizer and schedule": ("PolicySettings", "LoRASettings", "MasterAdamW", "Schedule"),
    "KL penalty, estimators and policy losses": (
        "KLPenalty", "GAE", "GRPO", "RLOO", "MaxRL", "Reinforce", "Distillation", "PPOClip", "SequenceClip",
    ),
    "Rewards": ("AnswerReward", "WeightedReward"),
    "Samplers": ("InProcessSampler", "VLLMSampler", "VLLMServerSampler"),
    "Sandboxes": ("CPythonSandbox", "PlainSandbox"),
    "Data": ("ReasoningDataModule", "StorySource", "HFDatasetSource", "AuthorsJson", "Gsm8kOfficial", "SelfTraining"),
    "Prompt formats": ("PythonProgram", "NaturalLanguage", "Chat"),
    "Checkpoints and strategy": ("RunCheckpoints", "ZeRO"),
}  # fmt: skip
"""Public classes that a config can name or set, by heading."""


def configuration_page() -> str:
    """Return the reference of all classes as Markdown."""
    parts = []
    for heading, names in SECTIONS.items():
        parts += [f"## {heading}", *(class_section(name, getattr(reft_pl, name)) for name in names)]
    callbacks = sorted(reft_pl_callbacks.__all__)
    parts += ["## Callbacks", *(class_section(name, getattr(reft_pl_callbacks, name)) for name in callbacks)]
    return "\n\n".join(parts) + "\n"


def class_section(name: str, cls: type) -> str:
    """Return a class's summary and the table of its settings."""
    doc = docstring_parser.parse(inspect.getdoc(cls) or "", docstring_parser.DocstringStyle.GOOGLE)
    text = "\n\n".join(filter(None, [doc.short_description, doc.long_description]))
    described = descriptions(cls)
    rows = [f"| `{key}` | {code(kind)} | {cell(described.get(key, ''))} |" for key, kind in keys(cls)]
    table = "\n".join(["| key | type = default | description |", "|---|---|---|", *rows]) if rows else "It has no settings."
    return f"### `{name}`\n\n{markdown(text)}\n\n{table}"


def descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each setting; the class's own word counts."""
    found: dict[str, str] = {}
    for kind in reversed(cls.__mro__):
        doc = docstring_parser.parse(kind.__dict__.get("__doc__") or "", docstring_parser.DocstringStyle.GOOGLE)
        found |= {param.arg_name: param.description or "" for param in doc.params}
    return found


def keys(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the name of every setting that a constructor takes, and its type with its default (none: it is required)."""
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            default = "" if parameter.default is parameter.empty else f" = {shown(parameter.default)}"
            yield parameter.name, type_text(parameter.annotation, cls) + default


def type_text(annotation: Any, cls: type) -> str:
    """Return an annotation as a config's author reads it: `Literal["a", "b"]` is `"a" | "b"`, also behind an alias."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    for name in re.findall(r"\b[A-Z]\w+", text):
        alias = getattr(sys.modules[cls.__module__], name, None)
        if get_origin(alias) is Literal:
            text = text.replace(name, f"Literal{list(get_args(alias))!r}")
    return re.sub(r"Literal\[([^\]]*)\]", lambda match: match[1].replace(", ", " | "), text)


def shown(default: Any) -> str:
    """Return a default as YAML writes it; a class or a record of settings by its name."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, type):
        return default.__name__
    return str(default) if isinstance(default, (int, float, str)) else type(default).__name__


def code(text: str) -> str:
    """Return text as a code span that may be in a table."""
    return f"`{text}`".replace("|", "\\|")


def cell(text: str) -> str:
    """Return a description as one line of a table."""
    return markdown(" ".join(text.split())).replace("|", "\\|")


def markdown(text: str) -> str:
    """Return reStructuredText's double backticks as Markdown's single ones."""
    return re.sub(r"``([^`]+)``", r"`\1`", text)
