"""Problems from any table: a dataset of the Hugging Face hub, a saved Arrow folder, JSON, JSON lines, CSV, Parquet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from reft_pl.data.files import RowError, format_of, read_csv_rows, read_json_rows
from reft_pl.data.rows import AnswerKind, OnBadRow, Row, to_problems
from reft_pl.data.sources import ProblemSource
from reft_pl.data.text import joined
from reft_pl.errors import UserError, first_line
from reft_pl.types import Problem


class HFDatasetSource(ProblemSource):
    r"""Any table with a question and an answer in each row.

    Args:
        path: name of a dataset on the hub, or a folder that ``save_to_disk`` wrote, or a .json, .jsonl, .csv or .parquet
            file. Text files may be compressed (.gz). JSON and JSON lines are recognised by content, not by name.
        split: which split of a hub dataset or of a folder with several.
        subset: the configuration of a hub dataset that has several (``main`` of openai/gsm8k).
        question: name of the column with the question, or of several whose texts make it up, in order.
        answer: name of the column with the answer.
        solution: name of the column with the annotated solution; null if there is none.
        id: name of the column with ids; null numbers the rows (``{prefix}_{row}``, from 0).
        prefix: what numbered ids begin with; null takes the file's or the dataset's own name.
        answer_pattern: regular expression with one group that finds the answer within its column (``####\s*(.+)``), last match.
        answer_type: ``number``, ``choice`` (a letter), or ``auto``: a single letter is a choice, all else a number.
        solutions: whether to keep the annotated solutions; false leaves questions and answers.
        limit: take only this many problems from the start.
        on_bad_row: ``error`` stops at the first bad row; ``skip`` leaves bad rows out and says how many.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "train",
        subset: str | None = None,
        question: str | list[str] = "question",
        answer: str = "answer",
        solution: str | None = None,
        id: str | None = None,  # noqa: A002 (the name that configs use for the field)
        prefix: str | None = None,
        answer_pattern: str | None = None,
        answer_type: AnswerKind = "auto",
        solutions: bool = True,
        limit: int | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> None:
        self.path = path
        self.split = split
        self.subset = subset
        self.question = [question] if isinstance(question, str) else question
        if not self.question:
            raise UserError(f"{path}: the question is made up of no column; name at least one")
        self.columns = {"answer": answer, "solution": solution, "id": id}
        self.prefix = prefix or Path(path.removesuffix(".gz")).stem
        self.answer_pattern = _pattern(answer_pattern)
        self.answer_type = answer_type
        self.solutions = solutions
        self.limit = limit
        self.on_bad_row = on_bad_row

    @property
    def name(self) -> str:
        """The path, with subset and split where they matter."""
        if _reader(Path(self.path)) is not None:
            return self.path
        return " ".join(filter(None, [self.path, self.subset, f"split {self.split}"]))

    def load(self) -> list[Problem]:
        """Read the table."""
        return to_problems(
            self._rows(), source=self.name, on_bad_row=self.on_bad_row, solutions=self.solutions, limit=self.limit
        )

    def _rows(self) -> Iterator[Row | RowError]:
        missing: str | None = None
        complete = False  # whether a row had all columns: then a row without one is a bad row, else the name is wrong
        for index, (place, row) in enumerate(self._table()):
            if isinstance(row, RowError):
                yield row
                continue
            absent = self._absent(row)
            complete = complete or absent is None
            if absent is not None:
                missing = missing or absent
                if self.on_bad_row == "error" and not complete:
                    raise UserError(f"{self.name} has {absent}")
                yield RowError("a column missing", f"{place} has {absent}")
                continue
            question = _whole([row.get(name) for name in self.question])
            answer, solution, own_id = (row.get(name) if name else None for name in self.columns.values())
            if self.answer_pattern is not None:
                found = self.answer_pattern.findall(str(answer))
                if not found:
                    yield RowError("no answer", f"{place} has no answer that matches {self.answer_pattern.pattern!r}")
                    continue
                answer = found[-1]
            row_id = own_id if self.columns["id"] else f"{self.prefix}_{index}"
            yield Row(place, row_id, question, answer, solution, self.answer_type)
        if missing is not None and not complete:
            raise UserError(f"{self.name} has {missing}")

    def _table(self) -> Iterable[tuple[str, Mapping[str, Any] | RowError]]:
        path = Path(self.path)
        reader = _reader(path)
        if reader is not None:
            return reader(path)
        if path.is_file():  # or the hub would be asked for a dataset of that name, again and again where it is out of reach
            raise UserError(f"{path} is a file of no kind that is read here: convert it to one of {', '.join(_FILES)}")
        dataset = self._from_disk(path) if path.is_dir() else self._from_hub()
        return ((f"row {number}", row) for number, row in enumerate(dataset, start=1))

    def _from_disk(self, path: Path) -> Iterable[Mapping[str, Any]]:
        from datasets import DatasetDict, load_from_disk  # noqa: PLC0415 (slow to import, and not every run needs it)
        from datasets.exceptions import DatasetsError  # noqa: PLC0415

        try:
            dataset = load_from_disk(str(path))
        except (OSError, ValueError, DatasetsError) as error:
            raise UserError(f"{path} is not a folder that datasets' save_to_disk wrote: {first_line(error)}") from None
        if not isinstance(dataset, DatasetDict):
            return cast("Iterable[Mapping[str, Any]]", dataset)
        if self.split not in dataset:
            raise UserError(f"{path} has no split {self.split!r}; it has {', '.join(dataset)}")
        return cast("Iterable[Mapping[str, Any]]", dataset[self.split])

    def _from_hub(self) -> Iterable[Mapping[str, Any]]:
        from datasets import load_dataset  # noqa: PLC0415 (slow to import, and not every run needs it)
        from datasets.exceptions import DatasetsError  # noqa: PLC0415

        try:
            return cast("Iterable[Mapping[str, Any]]", load_dataset(self.path, self.subset, split=self.split))
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            raise UserError(
                f"cannot load the dataset {self.name}: {first_line(error)}; it must be a file, a folder of save_to_disk, "
                "or the name of a dataset that the hub (or the local cache) has"
            ) from None

    def _absent(self, row: Mapping[str, Any]) -> str | None:
        """Return which column the row does not have, as words; None if it has all."""
        for field, column in [*(("question", name) for name in self.question), *self.columns.items()]:
            if column is not None and column not in row:
                return f"no column {column!r} for {field}; it has {', '.join(map(repr, row))}"
        return None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    from datasets import Dataset  # noqa: PLC0415 (slow to import, and not every run needs it)
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    try:
        rows = Dataset.from_parquet(str(path), keep_in_memory=True)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; check the path in the config") from None
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise UserError(f"{path} is no Parquet file: {first_line(error)}") from None
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row


_FILES = {".json": read_json_rows, ".jsonl": read_json_rows, ".csv": read_csv_rows, ".parquet": _parquet_rows}


def _reader(path: Path) -> Callable[[Path], Iterable[tuple[str, Mapping[str, Any] | RowError]]] | None:
    """What reads a file of this name; None for folders and datasets of the hub."""
    return _FILES.get(format_of(path))


def _pattern(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"the answer_pattern {pattern!r} is not a regular expression: {error}") from None
    if compiled.groups != 1:
        raise UserError(f"the answer_pattern {pattern!r} needs exactly one group, around the answer; it has {compiled.groups}")
    return compiled


def _whole(parts: list[object]) -> str | None:
    """The question of its parts; nothing where one of them is no text, which is for ``to_problems`` to say."""
    texts = [part for part in parts if isinstance(part, str)]
    return joined(texts) if len(texts) == len(parts) else None
