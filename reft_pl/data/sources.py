"""Where problems come from: the interface, and the two public formats of the paper's data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

from reft_pl.data.codec import Codec
from reft_pl.data.files import RowError, read_json_rows
from reft_pl.data.rows import AnswerKind, OnBadRow, Row, to_problems
from reft_pl.data.text import without_annotations
from reft_pl.types import Problem

_KINDS: dict[str, AnswerKind] = {"mathqa": "choice", "mathqa-numeric": "number", "gsm8k": "number", "svamp": "number"}


class ProblemSource(ABC):
    """A set of problems, read when it is needed; named in a config by class."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @abstractmethod
    def load(self) -> list[Problem]:
        """Read the problems, in the source's own order; ids are unique within the source.

        Raises:
            UserError: it cannot be read, a row is bad, or there are none.
        """

    def load_for(self, codec: Codec) -> list[Problem]:
        """Read the problems for training through ``codec``, on which they depend where solutions were sampled."""
        return self.load()


class AuthorsJson(ProblemSource):
    """A JSON file in the form of the ReFT authors' release.

    It is a list of objects, or one object a line, with item_id, question, answer_value and, where there is a solution,
    answer_cot. The item_id names the dataset (``svamp_17``): answers of mathqa are letters, those of svamp, gsm8k and
    mathqa-numeric numbers.

    Args:
        path: the file.
        solutions: whether to keep the annotated solutions; false leaves questions and answers.
        limit: take only this many problems from the start.
        on_bad_row: ``error`` stops at the first bad row; ``skip`` leaves bad rows out and says how many.
    """

    def __init__(self, path: str, solutions: bool = True, limit: int | None = None, on_bad_row: OnBadRow = "error") -> None:
        self.path = Path(path)
        self.solutions = solutions
        self.limit = limit
        self.on_bad_row = on_bad_row

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def load(self) -> list[Problem]:
        """Read the file."""
        return to_problems(
            starmap(self._row, read_json_rows(self.path)),
            source=self.name, on_bad_row=self.on_bad_row, solutions=self.solutions, limit=self.limit,
        )  # fmt: skip

    @staticmethod
    def _row(place: str, row: dict[str, Any] | RowError) -> Row | RowError:
        if isinstance(row, RowError):
            return row
        kind = _KINDS.get(str(row.get("item_id")).rpartition("_")[0], "auto")
        return Row(place, row.get("item_id"), row.get("question"), row.get("answer_value"), row.get("answer_cot"), kind)


class Gsm8kOfficial(ProblemSource):
    """GSM8K as released: JSON lines of question and answer, the answer being a solution and, after ``####``, a number.

    Calculator annotations (``<<48/2=24>>``) are taken out of the solutions. Ids are ``{prefix}_{line}``, counted from 0.

    Args:
        path: the file.
        prefix: what ids begin with.
        solutions: whether to keep the annotated solutions; false leaves questions and answers.
        limit: take only this many problems from the start.
        on_bad_row: ``error`` stops at the first bad row; ``skip`` leaves bad rows out and says how many.
    """

    def __init__(
        self,
        path: str,
        prefix: str = "gsm8k",
        solutions: bool = True,
        limit: int | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> None:
        self.path = Path(path)
        self.prefix = prefix
        self.solutions = solutions
        self.limit = limit
        self.on_bad_row = on_bad_row

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def load(self) -> list[Problem]:
        """Read the file."""
        return to_problems(
            self._rows(), source=self.name, on_bad_row=self.on_bad_row, solutions=self.solutions, limit=self.limit
        )

    def _rows(self) -> Iterator[Row | RowError]:
        for index, (place, row) in enumerate(read_json_rows(self.path)):
            if isinstance(row, RowError):
                yield row
                continue
            solution, marker, answer = str(row.get("answer") or "").rpartition("####")
            if not marker:
                yield RowError("no answer", f"{place} has no answer after ####")
                continue
            yield Row(place, f"{self.prefix}_{index}", row.get("question"), answer, without_annotations(solution), "number")
