"""Problem source for any table: a Hugging Face hub dataset, a saved Arrow folder, JSON, JSON lines, CSV or Parquet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, cast

from reft_pl.damage import damage
from reft_pl.data.files import RowError, format_of, read_csv_rows, read_json_rows
from reft_pl.data.rows import AnswerKind, OnBadRow, Row, named_columns
from reft_pl.data.sources import TableSource
from reft_pl.data.text import joined
from reft_pl.errors import UserError, first_line
from reft_pl.hub import dataset_access


class HFDatasetSource(TableSource):
    r"""Any table with a question and an answer in each row.

    Args:
        path: Name of a hub dataset, a folder written by ``save_to_disk``, or a .json, .jsonl, .csv or .parquet file. Text files
            may be compressed (.gz). JSON and JSON lines are recognised by content, not by suffix.
        split: Split of a hub dataset, or of a folder with several splits.
        subset: Configuration of a hub dataset with several (``main`` of openai/gsm8k).
        question: Name of the question column, or a list of columns to join in order.
        answer: Name of the answer column.
        solution: Name of the column with the annotated solution; null if there is none.
        id: Name of the id column; null numbers the rows (``{prefix}_{row}``, from 0).
        prefix: Prefix of numbered ids; null uses the name of the file or dataset.
        answer_pattern: Regular expression with one group that extracts the answer from its column (``####\s*(.+)``); the last
            match counts.
        answer_type: ``number``, ``choice`` (a letter), or ``auto``: a single letter is a choice, anything else a number.
        columns: Further columns for reward functions (``Problem.columns``): a list of column names, or a mapping from the name
            that the function uses to the column.
        solutions: Keep the annotated solutions; false keeps only questions and answers.
        limit: Read only this many problems, from the start.
        on_bad_row: ``error`` stops at the first bad row; ``skip`` skips bad rows and logs how many.
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
        columns: list[str] | dict[str, str] | None = None,
        solutions: bool = True,
        limit: int | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> None:
        super().__init__(solutions, limit, on_bad_row)
        self.path = path
        self.split = split
        self.subset = subset
        self.question = [question] if isinstance(question, str) else question
        if not self.question:
            raise UserError(f"{path}: the list of question columns is empty; name at least one column")
        self.fields = {"answer": answer, "solution": solution, "id": id}
        self.columns = named_columns(columns)
        self.prefix = prefix or Path(path.removesuffix(".gz")).stem
        self.answer_pattern = _pattern(answer_pattern)
        self.answer_type = answer_type

    @property
    def name(self) -> str:
        """The path, with subset and split if it is not a file."""
        if _reader(Path(self.path)) is not None:
            return self.path
        return " ".join(filter(None, [self.path, self.subset, f"split {self.split}"]))

    def rows(self) -> Iterator[Row | RowError]:
        """Yield the configured columns of every row."""
        missing: str | None = None
        complete = False  # after a complete row, a missing column is a bad row; before, a wrong column name in the config
        for index, (place, row) in enumerate(self.table()):
            if isinstance(row, RowError):
                yield row
                continue
            absent = self._absent(row)
            complete = complete or absent is None
            if absent is not None:
                missing = missing or absent
                if self.on_bad_row == "error" and not complete:
                    raise UserError(f"{self.name} has {absent}")
                yield RowError("missing column", f"{place} has {absent}")
                continue
            question = _whole([row.get(name) for name in self.question])
            answer, solution, own_id = (row.get(name) if name else None for name in self.fields.values())
            if self.answer_pattern is not None:
                found = self.answer_pattern.findall(str(answer))
                if not found:
                    yield RowError("no answer", f"{place} has no answer that matches {self.answer_pattern.pattern!r}")
                    continue
                answer = found[-1]
            row_id = own_id if self.fields["id"] else f"{self.prefix}_{index}"
            columns = {name: row[column] for name, column in self.columns.items()}
            yield Row(place, row_id, question, answer, solution, self.answer_type, columns)
        if missing is not None and not complete:
            raise UserError(f"{self.name} has {missing}")

    def table(self) -> Iterable[tuple[str, Mapping[str, Any] | RowError]]:
        """Yield the location and all columns of every row.

        Raises:
            UserError: the table cannot be read.
        """
        path = Path(self.path)
        reader = _reader(path)
        if reader is not None:
            return reader(path)
        if path.is_file():  # do not query the hub for a dataset of that name, with retries if it is unreachable
            raise UserError(f"{path} is not of a supported file type: convert it to one of {', '.join(_FILES)}")
        dataset = self._from_disk(path) if path.is_dir() else self._from_hub()
        return ((f"row {number}", row) for number, row in enumerate(dataset, start=1))

    def _from_disk(self, path: Path) -> Iterable[Mapping[str, Any]]:
        from datasets import DatasetDict, load_from_disk  # noqa: PLC0415 (slow to import, not always needed)
        from datasets.exceptions import DatasetsError  # noqa: PLC0415

        try:
            dataset = load_from_disk(str(path))
        except (OSError, ValueError, DatasetsError) as error:
            raise UserError(f"{path} is not a folder written by save_to_disk of datasets: {first_line(error)}") from None
        if not isinstance(dataset, DatasetDict):
            return cast("Iterable[Mapping[str, Any]]", dataset)
        if self.split not in dataset:
            raise UserError(f"{path} has no split {self.split!r}; it has {', '.join(dataset)}")
        return cast("Iterable[Mapping[str, Any]]", dataset[self.split])

    def _from_hub(self) -> Iterable[Mapping[str, Any]]:
        from datasets import load_dataset  # noqa: PLC0415 (slow to import, not always needed)
        from datasets.exceptions import DatasetsError  # noqa: PLC0415

        try:
            with dataset_access(self.path):
                return cast("Iterable[Mapping[str, Any]]", load_dataset(self.path, self.subset, split=self.split))
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            raise UserError(
                f"cannot load the dataset {self.name}: {first_line(error)}; give a file, a folder written by save_to_disk, "
                "or the name of a dataset on the hub or in the local cache"
            ) from None

    def _absent(self, row: Mapping[str, Any]) -> str | None:
        """Describe the first column that the row lacks; None if it has all columns."""
        wanted = [("question", name) for name in self.question], self.fields.items(), self.columns.items()
        for field, column in chain(*wanted):
            if column is not None and column not in row:
                return f"no column {column!r} for {field}; it has {', '.join(map(repr, row))}"
        return None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    from datasets import Dataset  # noqa: PLC0415 (slow to import, not always needed)
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    try:
        rows = Dataset.from_parquet(str(path), keep_in_memory=True)
    except FileNotFoundError:
        raise UserError(f"file not found: {path}; check the path in the config") from None
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise damage([path]) or UserError(f"{path} is not a Parquet file: {first_line(error)}; download it again") from None
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row


_FILES = {".json": read_json_rows, ".jsonl": read_json_rows, ".csv": read_csv_rows, ".parquet": _parquet_rows}


def _reader(path: Path) -> Callable[[Path], Iterable[tuple[str, Mapping[str, Any] | RowError]]] | None:
    """Return the reader for a file with this suffix; None for folders and hub datasets."""
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
    """Join the parts of a question; None if a part is not text, which ``to_problems`` then reports."""
    texts = [part for part in parts if isinstance(part, str)]
    return joined(texts) if len(texts) == len(parts) else None
