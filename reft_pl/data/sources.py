"""The problem source interface, and sources for the two public file formats of the paper's data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

from reft_pl.data.codec import Codec
from reft_pl.data.files import RowError, read_json_rows
from reft_pl.data.rows import AnswerKind, OnBadRow, Row, named_columns, to_problems
from reft_pl.data.text import without_annotations
from reft_pl.types import Problem

_KINDS: dict[str, AnswerKind] = {"mathqa": "choice", "mathqa-numeric": "number", "gsm8k": "number", "svamp": "number"}


class ProblemSource(ABC):
    """A set of problems, read lazily. A config names a source by class."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the source in messages."""

    @abstractmethod
    def load(self) -> list[Problem]:
        """Read the problems in the source's order; ids are unique within the source.

        Raises:
            UserError: the source cannot be read, a row is bad, or there are no problems.
        """

    def load_for(self, codec: Codec) -> list[Problem]:
        """Read the problems for training with ``codec``; only sources of sampled solutions depend on it."""
        return self.load()


class TableSource(ProblemSource):
    """A source with one problem in each row.

    Args:
        solutions: Keep the annotated solutions; false keeps only questions and answers.
        limit: Read only this many problems, from the start.
        on_bad_row: ``error`` stops at the first bad row; ``skip`` skips bad rows and logs how many.
    """

    def __init__(self, solutions: bool, limit: int | None, on_bad_row: OnBadRow) -> None:
        self.solutions = solutions
        self.limit = limit
        self.on_bad_row = on_bad_row

    @abstractmethod
    def rows(self) -> Iterator[Row | RowError]:
        """Yield the fields of every row, unchecked.

        Raises:
            UserError: the source cannot be read.
        """

    def load(self) -> list[Problem]:
        """Read and check the rows."""
        return to_problems(
            self.rows(), source=self.name, on_bad_row=self.on_bad_row, solutions=self.solutions, limit=self.limit
        )


class AuthorsJson(TableSource):
    """A JSON file in the format of the ReFT authors' release.

    The file is a list of objects, or one object per line, with item_id, question, answer_value and optionally answer_cot (the
    solution). The item_id names the dataset (``svamp_17``): answers are letters for mathqa, and numbers for svamp, gsm8k and
    mathqa-numeric.

    Args:
        path: Path of the file.
        solutions: Keep the annotated solutions; false keeps only questions and answers.
        limit: Read only this many problems, from the start.
        on_bad_row: ``error`` stops at the first bad row; ``skip`` skips bad rows and logs how many.
        columns: Further columns for reward functions (``Problem.columns``): a list of column names, or a mapping from the name
            that the function uses to the column.
    """

    def __init__(
        self,
        path: str,
        solutions: bool = True,
        limit: int | None = None,
        on_bad_row: OnBadRow = "error",
        columns: list[str] | dict[str, str] | None = None,
    ) -> None:
        super().__init__(solutions, limit, on_bad_row)
        self.columns = named_columns(columns)
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def rows(self) -> Iterator[Row | RowError]:
        """Yield the fields of every row of the file."""
        return starmap(self._row, read_json_rows(self.path))

    def _row(self, place: str, row: dict[str, Any] | RowError) -> Row | RowError:
        if isinstance(row, RowError):
            return row
        for name, column in self.columns.items():
            if column not in row:
                return RowError("missing column", f"{place} has no column {column!r} for {name}")
        columns = {name: row[column] for name, column in self.columns.items()}
        kind = _KINDS.get(str(row.get("item_id")).rpartition("_")[0], "auto")
        answer, solution = row.get("answer_value"), row.get("answer_cot")
        return Row(place, row.get("item_id"), row.get("question"), answer, solution, kind, columns)


class Gsm8kOfficial(TableSource):
    """GSM8K as released: JSON lines with question and answer. The answer is a solution, then a number after ``####``.

    Calculator annotations (``<<48/2=24>>``) are removed from the solutions. Ids are ``{prefix}_{line}``, counted from 0.

    Args:
        path: Path of the file.
        prefix: Prefix of the ids.
        solutions: Keep the annotated solutions; false keeps only questions and answers.
        limit: Read only this many problems, from the start.
        on_bad_row: ``error`` stops at the first bad row; ``skip`` skips bad rows and logs how many.
    """

    def __init__(
        self,
        path: str,
        prefix: str = "gsm8k",
        solutions: bool = True,
        limit: int | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> None:
        super().__init__(solutions, limit, on_bad_row)
        self.path = Path(path)
        self.prefix = prefix

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def rows(self) -> Iterator[Row | RowError]:
        """Yield the fields of every line of the file."""
        for index, (place, row) in enumerate(read_json_rows(self.path)):
            if isinstance(row, RowError):
                yield row
                continue
            solution, marker, answer = str(row.get("answer") or "").rpartition("####")
            if not marker:
                yield RowError("no answer", f"{place} has no answer after ####")
                continue
            yield Row(place, f"{self.prefix}_{index}", row.get("question"), answer, without_annotations(solution), "number")
