"""SVAMP's equations as programs."""

import pytest

from reft_pl.data.programs import svamp
from reft_pl.data.programs.writing import Unconvertible
from tests.data.programs.execution import execute


def test_an_equation_of_svamp() -> None:
    program = svamp.program_of("How many?", "( ( 7.0 + 5.0 ) * ( 9.0 - 2.5 ) )")
    steps = ["total = 7 + 5", "difference = 9 - 2.5", "product = total * difference", "result = product", "return result"]
    assert [line.strip() for line in program.splitlines()[2:]] == steps
    assert execute(program) == 78
    for equation in ("8.0", "( 8.0 - )", "x + 1"):
        with pytest.raises(Unconvertible):
            svamp.program_of("How many?", equation)
