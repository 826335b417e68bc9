"""Read and write the result files of a run folder: ``results.json`` and ``predictions/<set>.jsonl``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reft_pl.errors import UserError
from reft_pl.types import Sample


def write_aside(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)  # noqa: PTH105 (the file-level atomic rename is the point)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def update_results(run_dir: Path, section: str, figures: Mapping[str, Any]) -> None:
    """Merge ``figures`` into a section of ``results.json``; other sections and keys stay."""
    path = run_dir / "results.json"
    results = read_results(run_dir)
    results[section] = {**results.get(section, {}), **figures}
    write_aside(path, json.dumps(results, indent=2) + "\n")


def forget_test(run_dir: Path) -> None:
    """Delete the test results of previous weights, so that no table mistakes them for current ones.

    Sample files take hours to make and stay; they record the weights that wrote them.
    """
    results = read_results(run_dir)
    if [results.pop(section) for section in ("validation", "test", "samples", "rerank", "reranked") if section in results]:
        write_aside(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    for folder in ("predictions", "scores"):
        shutil.rmtree(run_dir / folder, ignore_errors=True)


def read_results(run_dir: Path) -> dict[str, Any]:
    """Return the content of a run folder's ``results.json``; empty if it does not exist."""
    path = run_dir / "results.json"
    if not path.exists():
        return {}
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}): move it away and test again") from error
    return results


def write_predictions(path: Path, samples: Iterable[Sample], verdicts: Iterable[bool]) -> None:
    """Write one JSON line per sample: item, question, response, status, answer, gold answer, verdict."""
    rows = (
        {
            "item_id": sample.problem.id,
            "question": sample.problem.question,
            "response": sample.text,
            "status": sample.result.status.value,
            "answer": sample.result.value,
            "gold": sample.problem.answer,
            "correct": correct,
            "stop": sample.completion.stop.value,
            "tokens": len(sample.completion.token_ids),
        }
        for sample, correct in zip(samples, verdicts, strict=True)
    )
    write_aside(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a predictions file.

    Raises:
        UserError: The file does not exist, because the run was not tested.
    """
    if not path.exists():
        raise UserError(f"no predictions at {path}: run `reft-pl test` on this run first")
    with path.open(encoding="utf-8", newline="\n") as file:  # not splitlines(): responses may contain U+2028
        return [json.loads(line) for line in file]
