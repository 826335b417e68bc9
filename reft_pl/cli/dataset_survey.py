"""Survey a dataset for `reft-pl init`: readable answers, the format of its solutions, lengths in tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reft_pl.data.codec import Codec
from reft_pl.data.columns import HASHES, Columns
from reft_pl.data.files import RowError, format_of
from reft_pl.data.hf_dataset import HFDatasetSource
from reft_pl.data.rows import checked
from reft_pl.data.sources import AuthorsJson, Gsm8kOfficial, TableSource
from reft_pl.data.splits import question_key
from reft_pl.data.tables import Table
from reft_pl.errors import UserError
from reft_pl.formats import Chat, CoTFormat, NaturalLanguage, PythonProgram
from reft_pl.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SOURCES: dict[str, type[TableSource]] = {kind.__name__: kind for kind in (AuthorsJson, Gsm8kOfficial, HFDatasetSource)}

_STEP = 50  # limits are multiples of it, in tokens
_RESPONSE = 400  # tokens of a response if there are no solutions to measure
_LEAST_RESPONSE = 100
_UNLIMITED = 10**9


@dataclass(frozen=True, slots=True)
class Survey:
    """What a training table holds.

    Args:
        problems: The rows with a question and a readable answer.
        bad: Number of other rows by reason.
        example: The first row that cannot be read, in words.
        solved: Number of problems with a solution in the format.
        unsolved: Id of the first problem without one.
        format: The proposed format.
    """

    problems: list[Problem]
    bad: Counter[str]
    example: str | None
    solved: int
    unsolved: str | None
    format: CoTFormat

    @property
    def distinct(self) -> int:
        """Number of different questions."""
        return len({question_key(problem.question) for problem in self.problems})


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens, and the limits that follow from them.

    Args:
        prompt: Longest prompt.
        sequence: Longest prompt with solution and EOS; None without solutions.
        max_prompt_tokens: Limit of prompts.
        max_tokens: Limit of sequences.
        dropped: Number of problems beyond the limits.
    """

    prompt: int
    sequence: int | None
    max_prompt_tokens: int
    max_tokens: int
    dropped: int


def source_settings(
    table: Table, columns: Columns, names: Collection[str], *, skip: bool = False, solutions: bool = True
) -> dict[str, Any]:
    """Return the source of a table as a config names it.

    Args:
        table: Where the rows are.
        columns: Which columns to read.
        names: All columns of the table.
        skip: Skip rows that cannot be read.
        solutions: Read the solutions.
    """
    of_text = format_of(Path(table.path)) in (".json", ".jsonl")
    arguments: dict[str, Any] = {"path": table.path}
    own_form = (columns.question, columns.answer) == (("question",), "answer_value") and columns.solution in (
        None,
        "answer_cot",
    )
    if of_text and own_form and "item_id" in names:
        kind = "AuthorsJson"
    elif of_text and columns == Columns(("question",), "answer", "answer", HASHES):
        kind = "Gsm8kOfficial"
    else:
        kind = "HFDatasetSource"
        arguments |= {key: value for key, value in (("split", table.split), ("subset", table.subset)) if value}
        arguments["question"] = columns.question[0] if len(columns.question) == 1 else list(columns.question)
        arguments["answer"] = columns.answer
        arguments |= {"answer_pattern": columns.answer_pattern} if columns.answer_pattern else {}
        arguments |= {"solution": columns.solution} if columns.solution and solutions else {}
    if not solutions and kind != "HFDatasetSource":
        arguments["solutions"] = False
    return {"class_path": kind, "init_args": {**arguments, "on_bad_row": "skip"} if skip else arguments}


def survey(settings: Mapping[str, Any], chat: bool) -> Survey:
    """Read and check every row of a source, and propose a format.

    Args:
        settings: The source, from ``source_settings``.
        chat: Whether the model has a chat template, for data without solutions.

    Raises:
        UserError: the source cannot be read, or has no question with a readable answer.
    """
    source = SOURCES[settings["class_path"]](**settings["init_args"])
    problems: list[Problem] = []
    bad: list[RowError] = []
    for read in checked(source.rows()):
        (problems if isinstance(read, Problem) else bad).append(read)  # type: ignore[arg-type]
    if not problems:
        raise UserError(f"{source.name} has no question with a readable answer ({bad[0].detail if bad else 'it is empty'})")
    solved = [problem for problem in problems if problem.solution is not None]
    if not solved:
        form: CoTFormat = Chat() if chat else PythonProgram()
    else:
        programs = sum("def solution" in str(p.solution) and _has_target(PythonProgram(), p) for p in solved)
        form = PythonProgram() if programs > len(solved) / 2 else NaturalLanguage()
    usable = [_has_target(form, problem) for problem in problems]
    unsolved = next((problem.id for problem, fits in zip(problems, usable, strict=True) if not fits), None)
    reasons = Counter(error.reason for error in bad)
    return Survey(problems, reasons, bad[0].detail if bad else None, sum(usable), unsolved, form)


def measure(found: Survey, evaluated: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, positions: int | None) -> Lengths:
    """Measure every prompt and solution, and choose limits that hold them.

    A limit leaves out the longest ones if they are more than twice as long as 99% of all, or longer than the model reads.

    Args:
        found: The training problems and their format.
        evaluated: Problems of other sets, which only need to fit as prompts.
        tokenizer: Tokenizer of the model.
        positions: Longest sequence that the model reads, in tokens; None without a limit.
    """
    codec = Codec(tokenizer, found.format, _UNLIMITED - 1, _UNLIMITED)
    prompts = codec.longest_prompts([*found.problems, *evaluated])
    solved = [index for index, problem in enumerate(found.problems) if found.solved and _has_target(found.format, problem)]
    examples = [len(example.ids) for example in codec.examples([found.problems[index] for index in solved])]
    most = positions or _UNLIMITED
    longest_prompt = _limit(prompts)
    room = _limit(examples) if examples else longest_prompt + _RESPONSE
    max_tokens = min(max(room, longest_prompt + _LEAST_RESPONSE), most)
    max_prompt_tokens = min(longest_prompt, max_tokens - min(_LEAST_RESPONSE, max_tokens // 2))
    beyond = {index for index, length in enumerate(prompts) if length > max_prompt_tokens}
    beyond |= {index for index, length in zip(solved, examples, strict=True) if length > max_tokens}
    return Lengths(max(prompts), max(examples, default=None), max_prompt_tokens, max_tokens, len(beyond))


def _limit(lengths: Sequence[int]) -> int:
    """Return the longest length, or the 99th percentile if outliers exceed it twofold, rounded up."""
    ordered = sorted(lengths)
    usual = ordered[ceil(0.99 * len(ordered)) - 1]
    return ceil((ordered[-1] if ordered[-1] <= 2 * usual else usual) / _STEP) * _STEP


def _has_target(form: CoTFormat, problem: Problem) -> bool:
    """Return whether a problem has a solution that SFT can train on in this format."""
    if problem.solution is None:
        return False
    try:
        form.target_text(problem)
    except UserError:
        return False
    return True
