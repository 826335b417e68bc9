"""Recognise plain programs, which by their syntax can do nothing but arithmetic. Standard library only.

A plain program is one function ``solution()`` of assignments, branches, loops and arithmetic on numbers, strings, lists and
tuples. It reads only a few attributes of ``math``, calls only the harmless functions below, and changes only objects that it
created. Several plain programs can therefore share a process without seeing each other.
"""

from __future__ import annotations

import ast
import builtins

FUNCTIONS = frozenset({
    "abs", "bool", "divmod", "enumerate", "float", "int", "len", "max", "min", "pow", "range", "reversed", "round", "sorted",
    "sum", "zip",
})  # fmt: skip
"""Functions that a plain program may call: they access only their arguments."""

_MATH = frozenset({"ceil", "floor", "gcd", "pi", "sqrt"})
_BUILTINS = frozenset(dir(builtins))
_ALLOWED = frozenset({
    ast.Assign, ast.AugAssign, ast.Return, ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.Pass, ast.Expr,
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple, ast.Subscript, ast.ListComp,
    ast.Load, ast.Store, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Not,
    ast.And, ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
})  # fmt: skip
_CONSTANTS = frozenset({int, float, bool, type(None)})


def beyond_plain(program: str) -> str:
    """Return the first construct that makes a program not plain; empty if the program is plain.

    Raises:
        SyntaxError: the parser rejects the program.
        ValueError, MemoryError, RecursionError: the program has null bytes, lone surrogates or deep nesting.
    """
    module = ast.parse(program)
    definitions = [statement for statement in module.body if not _is_import_of_math(statement)]
    if len(definitions) != 1 or not isinstance(definitions[0], ast.FunctionDef) or definitions[0].name != "solution":
        return "anything but one function solution()"
    function = definitions[0]
    # Parts of a definition that newer Python versions add (such as type parameters) may not be harmless.
    filled = [name for name, part in ast.iter_fields(function) if part and name not in {"name", "body", "args"}]
    if filled or any(part for _, part in ast.iter_fields(function.args)):
        return "arguments, annotations or decorators"
    docstring = ast.get_docstring(function, clean=False) is not None
    nodes: list[ast.AST] = [*function.body[docstring:]]
    while nodes:
        node = nodes.pop()
        if type(node) not in _ALLOWED and not _is_harmless(node):
            return type(node).__name__
        for name in node._fields:  # like ast.walk, in half the time
            part = getattr(node, name, None)
            if isinstance(part, list):
                nodes += part
            elif isinstance(part, ast.AST):
                nodes.append(part)
    return ""


def _is_import_of_math(node: ast.AST) -> bool:
    return isinstance(node, ast.Import) and [(name.name, name.asname) for name in node.names] == [("math", None)]


def _is_harmless(node: ast.AST) -> bool:  # noqa: PLR0911 (one return per case)
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            return name in FUNCTIONS or not (name in _BUILTINS or name.startswith("__"))
        case ast.Name(id=name):
            return not (name == "math" or name in _BUILTINS or name.startswith("__"))
        case ast.Constant(value=str(value)):
            return "%" not in value  # %-formatting could reveal an object's address, which depends on other programs
        case ast.Constant(value=value):
            return type(value) in _CONSTANTS
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            return name in FUNCTIONS
        case ast.Call(func=ast.Attribute(), keywords=[]):
            return True  # the attribute node is checked separately
        case ast.Attribute(value=ast.Name(id="math"), attr=name, ctx=ast.Load()):
            return name in _MATH
        case ast.comprehension(is_async=0):
            return True
        case ast.alias():
            return True  # the import node is checked
    return _is_import_of_math(node)
