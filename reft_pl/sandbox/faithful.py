"""Which programs Monty may run, decided by their syntax: tests found no difference from CPython. Standard library only.

The allow-list holds one function ``solution()`` of assignments, branches, loops and arithmetic on numbers, strings, lists and
tuples. It leaves out what Monty does otherwise: generators, ``map``, ``filter``, ``zip``, ``enumerate`` and ``reversed`` (eager
there), ``is``, ``round`` (ties), sets and dictionaries (order), formatting, classes, imports other than ``math``.
"""

from __future__ import annotations

import ast

_STATEMENTS = (ast.Assign, ast.AugAssign, ast.Return, ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.Pass)
_EXPRESSIONS = (
    ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.List, ast.Tuple,
    ast.Subscript, ast.ListComp, ast.comprehension, ast.expr_context,
)  # fmt: skip
_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Not, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_FUNCTIONS = frozenset({"abs", "float", "int", "len", "max", "min", "range", "sum"})
_MATH = frozenset({"ceil", "floor", "gcd", "pi", "sqrt"})


def unfaithful_part(program: str) -> str:
    """Name the first construct that Monty may run otherwise than CPython; empty if there is none.

    Raises:
        SyntaxError: CPython refuses the program.
        ValueError: likewise, for null bytes and lone surrogates.
    """
    compile(program, "<program>", "exec", dont_inherit=True)
    module = ast.parse(program)
    functions = [statement for statement in module.body if not _is_import_of_math(statement)]
    if len(functions) != 1 or not isinstance(functions[0], ast.FunctionDef) or functions[0].name != "solution":
        return "anything but one function solution()"
    function = functions[0]
    if ast.unparse(function.args) or function.decorator_list:
        return "arguments or decorators"
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    nodes = [node for statement in body for node in ast.walk(statement)]
    if any(isinstance(node, (ast.List, ast.ListComp)) for node in nodes) and any(
        isinstance(node, ast.AugAssign) for node in nodes
    ):
        return "AugAssign"  # CPython changes a list in place
    return next((type(node).__name__ for node in nodes if not _is_faithful(node)), "")


def _is_import_of_math(node: ast.AST) -> bool:
    return isinstance(node, ast.Import) and [(name.name, name.asname) for name in node.names] == [("math", None)]


def _is_faithful(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float, str, bool, type(None))
    if isinstance(node, ast.Name):
        return not (node.id in _FUNCTIONS | {"math"} and isinstance(node.ctx, ast.Store))
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "math" and node.attr in _MATH
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        return (named or isinstance(node.func, ast.Attribute)) and not node.keywords
    if isinstance(node, ast.comprehension):
        return not node.is_async
    return isinstance(node, (*_STATEMENTS, *_EXPRESSIONS, *_OPERATORS)) or _is_import_of_math(node)
