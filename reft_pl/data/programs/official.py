"""Read the official releases of GSM8K, SVAMP and MathQA as drafts with solutions in a CoT format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from reft_pl.data.files import RowError, read_json_rows
from reft_pl.data.programs import gsm8k, mathqa, svamp
from reft_pl.data.programs.draft import Check, Draft
from reft_pl.data.programs.writing import Unconvertible
from reft_pl.data.text import is_ambiguous_number, joined, stated_number, without_annotations
from reft_pl.errors import UserError
from reft_pl.formats.options import option_values, read_options, rounding
from reft_pl.types import Answer

CoT = Literal["python", "nl"]
Dataset = Literal["gsm8k", "svamp", "mathqa", "mathqa-numeric"]

_AMBIGUOUS = "the answer's separators are ambiguous (write 1.5 or 1,500)"


def read_release(dataset: Dataset, path: Path, cot: CoT) -> Iterator[Draft | Unconvertible]:
    """Yield a draft for each row of a file, or the reason why there is none; ids are ``{dataset}_{row}``, counted from 0.

    Args:
        dataset: The dataset. Answers are letters for ``mathqa``, and the correct option's number for ``mathqa-numeric``.
        path: File of the release: JSON lines, or one JSON list.
        cot: Write programs (``python``) or solutions in words (``nl``).

    Raises:
        UserError: the file cannot be read, or the release has no solutions in this format.
    """
    if (dataset, cot) == ("svamp", "nl"):
        raise UserError("the SVAMP release has equations but no solutions in words: use svamp_nl.json of the paper's authors")
    for index, (_, row) in enumerate(read_json_rows(path)):
        yield Unconvertible(row.reason) if isinstance(row, RowError) else _draft(dataset, index, row, cot)


def _draft(dataset: Dataset, index: int, row: Mapping[str, Any], cot: CoT) -> Draft | Unconvertible:
    try:
        return _READERS[dataset](f"{dataset}_{index}", row, cot)
    except Unconvertible as reason:
        return reason


def _gsm8k(item_id: str, row: Mapping[str, Any], cot: CoT) -> Draft:
    question = _text(row, "question")
    solution, marker, stated = _text(row, "answer").rpartition("####")
    answer = stated_number(stated)
    if not marker or answer is None:
        raise Unconvertible(_AMBIGUOUS if is_ambiguous_number(stated) else "no number after ####")
    if cot == "nl":
        return Draft(item_id, question, answer, without_annotations(solution).strip())
    return _checked(item_id, question, answer, gsm8k.program_of(question, solution))


def _svamp(item_id: str, row: Mapping[str, Any], cot: CoT) -> Draft:
    question = joined([_text(row, "Body"), _text(row, "Question")])
    answer = stated_number(str(row.get("Answer")))
    if answer is None:
        raise Unconvertible(_AMBIGUOUS if is_ambiguous_number(str(row.get("Answer"))) else "the answer is not a number")
    return _checked(item_id, question, answer, svamp.program_of(question, _text(row, "Equation")))


def _mathqa_numeric(item_id: str, row: Mapping[str, Any], cot: CoT) -> Draft:
    problem, options = _text(row, "Problem"), read_options(_text(row, "options"))
    answer = option_values(options).get(_right_letter(row, options))
    if answer is None:
        raise Unconvertible("the correct option is not a number")
    if cot == "nl":
        return Draft(item_id, problem, answer, mathqa.rationale(_text(row, "Rationale")))
    return _checked(item_id, problem, answer, mathqa.numeric_program(problem, problem, _text(row, "linear_formula")))


def _mathqa(item_id: str, row: Mapping[str, Any], cot: CoT) -> Draft:
    problem, options = _text(row, "Problem"), read_options(_text(row, "options"))
    letter, values = _right_letter(row, options), option_values(options)
    question = f"{problem}\n" + " , ".join(f"{name} ) {text}" for name, text in options.items())
    if cot == "nl":
        return Draft(item_id, question, letter, mathqa.rationale(_text(row, "Rationale")))
    if letter not in values:
        raise Unconvertible("the correct option is not a number")
    formula = _text(row, "linear_formula")
    program = mathqa.choice_program(question, problem, formula, values)
    # The nearest option may be correct by chance, so the number must match as well.
    number = Check(mathqa.numeric_program(question, problem, formula), values[letter], rounding(options[letter]))
    return Draft(item_id, question, letter, program, (Check(program, letter), number))


def _right_letter(row: Mapping[str, Any], options: Mapping[str, str]) -> str:
    letter = _text(row, "correct").lower()
    if letter not in options:
        raise Unconvertible("no correct option")
    return letter


def _checked(item_id: str, question: str, answer: Answer, program: str) -> Draft:
    return Draft(item_id, question, answer, program, (Check(program, answer),))


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise Unconvertible(f"no {field}")
    return value.strip()


_READERS: dict[Dataset, Callable[[str, Mapping[str, Any], CoT], Draft]] = {
    "gsm8k": _gsm8k,
    "svamp": _svamp,
    "mathqa": _mathqa,
    "mathqa-numeric": _mathqa_numeric,
}
