"""A linter for English: docstrings, comments, messages and documents keep to plain words and short sentences."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SOURCES = sorted(path for folder in ("reft_pl", "callbacks", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PAGES = [path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
NOTEBOOKS = (ROOT / "docs" / "notebooks").glob("*.ipynb")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *PAGES, *NOTEBOOKS])
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MOST_WORDS = 35
"""Words of a sentence in a docstring."""

BANNED = re.compile(
    r"\b(said|told|had|anew|but for|of its own|of their own|where there (?:is|are)|is to be|are to be|as it is|goes on|go on|"
    r"stands|what is drawn|lays? over|laid over|number formats?|those that|whose)\b",
    re.IGNORECASE,
)
DATA = [ROOT / "reft_pl" / file for file in ("data/stories", "data/programs/names.py", "formats/words.py", "formats/chat.py")]
"""Strings there are pieces of stories, word lists and prompts."""


def is_data(path: Path) -> bool:
    """Return whether the strings of a file are data rather than prose."""
    return any(path.is_relative_to(data) for data in DATA)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield comments with their line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield docstrings, comments and messages (string constants of four words or more) with their line."""
    source = path.read_text(encoding="utf-8")
    yield from comments(source)
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and len(text.split()) >= 4 and not is_data(path):
            yield node.lineno, text


def prose_of_test(path: Path) -> Iterator[tuple[int, str]]:
    """Yield comments, docstrings, messages of assertions, and the words of test names; other strings are data."""
    source = path.read_text(encoding="utf-8")
    yield from comments(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
        if isinstance(node, ast.Assert) and isinstance(node.msg, ast.Constant):
            yield node.lineno, str(node.msg.value)


def faults_of(path: Path, prose: Iterator[tuple[int, str]]) -> list[str]:
    """Return banned phrases, and the docstrings' sentences that are too long."""
    faults = [f"{path.name}:{line}: {match[0]!r}" for line, text in prose for match in BANNED.finditer(text)]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, DOCUMENTED):
            long = [text for text in sentences(ast.get_docstring(node) or "") if len(text.split()) > MOST_WORDS]
            faults += [f"{path.name}: {len(text.split())} words: {text[:80]}" for text in long]
    return faults


def sentences(text: str) -> Iterator[str]:
    """Yield sentences, list items and paragraphs apart."""
    for part in re.split(r"\n\s*\n|\n\s*[-*] |\n\s+\w+: |\n\s*(?:Args|Returns|Raises|Yields|Source):|(?<=[.;:?!])\s", text):
        yield " ".join(part.split())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_is_plain_english(path: Path) -> None:
    faults = faults_of(path, prose_of(path))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_test_is_plain_english(path: Path) -> None:
    faults = faults_of(path, prose_of_test(path))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_is_plain_english(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    faults = [f"{path.name}: {text[max(match.start() - 40, 0) : match.end() + 20]!r}" for match in BANNED.finditer(text)]
    assert not faults, "\n".join(faults)
