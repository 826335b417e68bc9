"""MathQA's formulas as programs."""

import math

import pytest

from reft_pl.data.programs import mathqa
from reft_pl.data.programs.mathqa_operations import OPERATIONS
from reft_pl.data.programs.writing import Unconvertible
from reft_pl.formats.options import option_values, read_options
from tests.data.programs.execution import execute


def test_a_formula_of_mathqa() -> None:
    problem = "the banker ' s gain of a sum due 3 years hence at 10 % per annum is rs . 36 . what is the present worth ?"
    formula = "multiply(n2,const_100)|multiply(n0,n1)|divide(#0,#1)|multiply(#2,const_100)|divide(#3,#1)|"
    assert execute(mathqa.numeric_program(problem, problem, formula)) == 400
    options = read_options("a ) rs . 400 , b ) rs . 300 , c ) rs . 500 , d ) 1,350 , e ) none of these")
    assert options["e"] == "none of these"
    values = option_values(options)
    assert values == {"a": 400, "b": 300, "c": 500, "d": 1350}
    assert execute(mathqa.choice_program(problem, problem, formula, values)) == "a"
    assert read_options("['a ) 50', 'b ) 47.5', 'c ) 45']") == {"a": "50", "b": "47.5", "c": "45"}


@pytest.mark.parametrize("formula", ["", "multiply(n0,n9)|", "add(n0,#0)|", "conjure(n0)|", "add(n0)|", "add(n0,n1"])
def test_an_incomplete_formula_makes_no_program(formula: str) -> None:
    with pytest.raises(Unconvertible):
        mathqa.formula_lines("2 and 3", formula)


def test_operations_compute_what_their_names_mean() -> None:
    def of(name: str, *arguments: float) -> float:
        result: float = eval(OPERATIONS[name].format(*arguments), {"math": math})
        return result

    assert of("triangle_area_three_edges", 3, 4, 5) == 6
    assert of("p_after_gain", 25, 80) == 100
    assert of("original_price_before_gain", 25, 100) == 80
    assert of("original_price_before_loss", 20, 80) == 100
    assert of("speed_in_still_water", 9, 5) == 7
    assert of("stream_speed", 9, 5) == 2
    assert of("surface_rectangular_prism", 1, 2, 3) == 22
    assert of("volume_cone", 2, 3) == pytest.approx(4 * math.pi)


@pytest.mark.parametrize(
    "text",
    ['"5 * 4 = 20 . answer : c ."', "5 * 4 = 20 . the answer is c", "5 * 4 = 20 . answer : option c", "5 * 4 = 20 . ans . c"],
)
def test_the_answers_letter_is_removed_from_a_rationale(text: str) -> None:
    assert mathqa.rationale(text).rstrip(" .") == "5 * 4 = 20"


def test_a_rationale_of_only_a_letter_is_refused() -> None:
    with pytest.raises(Unconvertible):
        mathqa.rationale('"answer : c"')
