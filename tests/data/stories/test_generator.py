"""Story problems are reproducible, disjoint, varied and correct."""

import itertools
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from reft_pl.data.expression import names, parse
from reft_pl.data.splits import question_key
from reft_pl.data.stories.dice import Dice
from reft_pl.data.stories.generator import HELD_OUT_ORDERS, SPLITS, Split, make_problem
from reft_pl.data.stories.grammar import RUNNING, Piece, Situation
from reft_pl.data.stories.plot import LARGEST, arithmetic, draw_plot
from reft_pl.data.stories.situations import SEEN, UNSEEN
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Problem, Status

SIZES: dict[Split, int] = {"train": 3000, "validation": 600, "test": 1000, "unseen": 1000}


@pytest.fixture(scope="module")
def problems() -> dict[Split, list[Problem]]:
    return {split: [make_problem(split, index) for index in range(SIZES[split])] for split in SPLITS}


def orders(situations: tuple[Situation, ...], held_out: frozenset[str], draws: int = 6000) -> Counter[str]:
    counts: Counter[str] = Counter()
    for index in range(draws):
        dice = Dice("orders", index)
        plot = draw_plot(dice.choice(situations), dice, lambda order: order not in held_out, lambda _: True)
        if plot is not None:
            counts[plot.order] += 1
    return counts


def test_programs_run_to_the_answer_that_the_generator_computed(problems: dict[Split, list[Problem]]) -> None:
    some = [problem for split in SPLITS for problem in problems[split][:300]]
    sandbox = CPythonSandbox(workers=1)
    try:
        results = sandbox.run([problem.solution or "" for problem in some])
    finally:
        sandbox.close()
    assert [result.status for result in results] == [Status.OK] * len(some)
    assert [result.value for result in results] == pytest.approx([problem.answer for problem in some])


def test_answers_are_positive_integers_of_sensible_size(problems: dict[Split, list[Problem]]) -> None:
    for problem in itertools.chain.from_iterable(problems.values()):
        assert isinstance(problem.answer, float)
        assert problem.answer.is_integer()
        assert 0 < problem.answer <= LARGEST


def test_no_question_repeats_within_or_across_splits(problems: dict[Split, list[Problem]]) -> None:
    keys = [question_key(problem.question) for problem in itertools.chain.from_iterable(problems.values())]
    assert len(set(keys)) == len(keys)


def test_ids_are_unique(problems: dict[Split, list[Problem]]) -> None:
    ids = [problem.id for problem in itertools.chain.from_iterable(problems.values())]
    assert len(set(ids)) == len(ids)


def test_enough_situations_and_all_four_operations() -> None:
    assert len(SEEN) >= 20
    assert len(UNSEEN) >= 5
    assert not {situation.name for situation in SEEN} & {situation.name for situation in UNSEEN}
    seen = orders(SEEN, HELD_OUT_ORDERS)
    assert {len(order) for order in seen} == {2, 3, 4}
    used = Counter("".join(seen.elements()))
    assert set(used) == set("+-*/")
    assert min(used.values()) > 0.05 * sum(used.values())


def test_unseen_has_orders_of_operation_that_training_never_has() -> None:
    assert not set(orders(SEEN, HELD_OUT_ORDERS)) & HELD_OUT_ORDERS
    unseen = orders(UNSEEN, frozenset())
    held_out = sum(count for order, count in unseen.items() if order in HELD_OUT_ORDERS)
    assert held_out > 0.1 * sum(unseen.values())


def test_texts_are_filled_in(problems: dict[Split, list[Problem]]) -> None:
    for problem in itertools.chain.from_iterable(problems.values()):
        assert not re.search(r"[{}|+]|  |\bx\b", problem.question)
        assert problem.question.endswith("?")
        assert problem.solution is not None
        assert problem.solution.startswith(f'def solution():\n    """{problem.question}"""\n    ')
        assert problem.solution.endswith("\n    return result")
        for sentence in re.split(r"(?<=[.?]) ", problem.question):
            assert sentence[0].isupper() or sentence[0].isdigit()


def test_programs_differ_in_style(problems: dict[Split, list[Problem]]) -> None:
    lines = [problem.solution.split('"""\n')[1].count("\n") for problem in problems["train"] if problem.solution]
    assert min(lines) == 1  # one expression, then the return
    assert max(lines) >= 8  # given numbers assigned first


def test_a_problem_does_not_depend_on_the_hash_seed() -> None:
    code = "from reft_pl.data.stories.generator import make_problem as m; print([m('test', k, 3) for k in range(20)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[make_problem('test', index, 3) for index in range(20)]}\n"}


def test_a_known_problem_does_not_change() -> None:
    """Published figures depend on problem indices, so any change of the generator must be deliberate."""
    question = (
        "Each box holds 10 pears. Rosa gets 8 boxes of pears for her stand. "
        "All that is there is then sold at 2 dollars a pear. How much money does Rosa take?"
    )
    assert make_problem("train", 0) == Problem(
        "story_train_0_0",
        question,
        160.0,
        f'def solution():\n    """{question}"""'
        "\n    boxes = 8"
        "\n    per_box = 10"
        "\n    price = 2"
        "\n    delivered = boxes * per_box"
        "\n    money = delivered * price"
        "\n    result = money"
        "\n    return result",
    )


def test_seen_situations_have_several_wordings_and_unseen_ones_one() -> None:
    """The variety that docs/results.md and StorySource state."""

    def wordings(situation: Situation) -> float:
        pieces = (*situation.openings, *situation.events, *situation.endings)
        return sum(len(piece.texts) for piece in pieces) / len(pieces)

    assert (len(SEEN), len(UNSEEN)) == (25, 6)
    assert {wordings(situation) for situation in UNSEEN} == {1.0}
    averages = [round(wordings(situation), 1) for situation in SEEN]
    assert (min(averages), max(averages)) == (1.3, 2.0)


def test_seeds_change_problems_and_solutions_are_optional() -> None:
    assert make_problem("train", 0, seed=0).question != make_problem("train", 0, seed=1).question
    with_solution, without = make_problem("train", 5), make_problem("train", 5, solution=False)
    assert without.solution is None
    assert (without.question, without.answer) == (with_solution.question, with_solution.answer)


@pytest.mark.parametrize("situation", SEEN + UNSEEN, ids=lambda situation: situation.name)
def test_a_situation_is_well_formed(situation: Situation) -> None:
    people = {"p", "q", "he", "his", "him"}
    slot = re.compile(r"\{([a-z_]+)(?:\+|'s)?\}")
    for piece in (*situation.openings, *situation.events, *situation.endings):
        for text in piece.texts:
            used = set(slot.findall(text))
            assert set(piece.numbers) <= used, f"a number is not mentioned: {text}"
            assert used <= set(piece.numbers) | set(situation.words) | people, f"a slot has no meaning: {text}"
        known = {RUNNING, *piece.numbers}
        for line in piece.steps.split(";"):
            name, _, text = (part.strip() for part in line.rpartition("="))
            assert set(names(parse(text))) <= known, f"a step uses an unknown name: {line}"
            known.add(name)
    for opening, ending in itertools.product(situation.openings, situation.endings):
        pieces: tuple[Piece, ...] = (opening, *situation.events, ending)
        given = [name for piece in pieces for name in piece.numbers]
        made = [step.name for step in arithmetic(pieces)]
        assert len(set(given + made)) == len(given + made), f"a name stands for two things: {sorted(given + made)}"
