"""Preloading suffices: no import fails once the file system is inaccessible."""

import pytest

from reft_pl.sandbox.cpython import CPythonSandbox

PROGRAMS = {
    "equations": "x, y = symbols('x y')\n return solve([x + y - 3, x - y - 1], [x, y])[x]",
    "inequality": "x = symbols('x')\n return solveset(x**2 < 4, x, S.Reals).measure",
    "quintic": "x = symbols('x')\n return re(N(solve(x**5 - x + 1, x)[0]))",
    "diophantine": "x, y = symbols('x y', integer=True)\n return len(diophantine(2*x + 3*y - 5))",
    "integral": "x = symbols('x')\n return integrate(exp(-x**2), (x, -oo, oo))**2 / pi",
    "simplify": "x = symbols('x')\n return simplify(sin(x)**2 + cos(x)**2)",
    "sum": "n = symbols('n')\n return summation(n, (n, 1, 10))",
    "limit": "x = symbols('x')\n return limit(sin(x) / x, x, 0)",
    "matrix": "return Matrix([[1, 2], [3, 4]]).det()",
    "text": "return sympify('2 * 21')",
    "lambdify": "x = symbols('x')\n return float(lambdify(x, x**2)(3))",
    "recurrence": "n = symbols('n')\n f = Function('f')\n return rsolve(f(n + 1) - 2*f(n), f(n), {f(0): 1}).subs(n, 5)",
    "ordinary": "x = symbols('x')\n f = Function('f')(x)\n return dsolve(f.diff(x) - x, f).rhs.subs({x: 2, 'C1': 1})",
    "primes": "return prime(20) + sum(factorint(360).values())",
    "rational": "return nsimplify(0.25, rational=True)",
    "maximum": "x = symbols('x')\n return maximum(x**2, x, Interval(0, 2))",
    "geometry": "return Point(0, 0).distance(Point(3, 4))",
}


@pytest.fixture(scope="module")
def patient():
    sandbox = CPythonSandbox(timeout_seconds=10)
    yield sandbox
    sandbox.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_sympy_finds_its_lazy_parts(patient, name):
    (result,) = patient.run([f"from sympy import *\ndef solution():\n {PROGRAMS[name]}"])
    assert result.value is not None, (name, result.status, result.detail)


PUBLIC = "math cmath statistics fractions decimal itertools functools collections datetime random re string numpy sympy mpmath"


@pytest.mark.parametrize("module", PUBLIC.split())
def test_public_modules_are_preloaded(cpython, module):
    assert cpython.run([f"from {module} import *\ndef solution():\n return 4"])[0].value == 4.0


@pytest.mark.parametrize("modules", ["'numpy'", "'math'", "'mpmath'", "'sympy'", "None"])
def test_lambdify_finds_its_modules(cpython, modules):
    body = f"x = sympy.Symbol('x')\n return sympy.lambdify(x, sympy.sqrt(x) + 1, {modules})(9)"
    assert cpython.run([f"import sympy\ndef solution():\n {body}"])[0].value == 4.0


def test_ctypes_cannot_be_imported(cpython):
    imports = [f"{first}import {name}" for first in ("", "import sympy; ") for name in ("ctypes", "_ctypes")]
    programs = [f"{line}\ndef solution():\n return 1" for line in imports]
    assert {result.detail for result in cpython.run(programs)} == {"ModuleNotFoundError"}
