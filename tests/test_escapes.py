"""Escaped text on a terminal, in a Markdown block, a span and a table."""

import pytest

from reft_pl.escapes import code_span, escape, fenced, markdown_table


@pytest.mark.parametrize(
    ("raw", "block"),
    [
        ("x = 1\n", "```python\nx = 1\n```"),
        ("a\n```\n# not a heading\n```\n", "````python\na\n```\n# not a heading\n```\n````"),
        ("`````", "``````python\n`````\n``````"),
        ("\x1b[2J", "```python\n\\x1b[2J\n```"),
    ],
)
def test_a_block_ends_where_its_text_ends(raw: str, block: str) -> None:
    assert fenced(raw, "python") == block


@pytest.mark.parametrize(
    ("raw", "span"), [("a", "`a`"), ("a`b", "``a`b``"), ("`a`", "`` `a` ``"), ("two\nlines", "`two lines`"), ("a|b", "`a|b`")]
)
def test_a_span_holds_backticks(raw: str, span: str) -> None:
    assert code_span(raw) == span


def test_a_cell_can_contain_separators() -> None:
    assert markdown_table(["a", "b"], [["`x|y`", "1"]]) == "| a | b |\n| --- | --- |\n| `x\\|y` | 1 |"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("def f():\n\treturn 'ä€😀'\n", "def f():\n\treturn 'ä€😀'\n"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("right\rwrong", r"right\rwrong"),
        ("a\bb\x00\x7f\x9b", r"a\x08b\x00\x7f\x9b"),
        ("x = 1 # \u202e0 = x", r"x = 1 # \u202e0 = x"),
        ("line\u2028line \udcff", r"line\u2028line \udcff"),
        (r"C:\x1b stays", r"C:\x1b stays"),
    ],
    ids=["plain", "colour", "return", "control", "direction", "surrogate", "backslash"],
)
def test_invisible_characters_are_escaped(raw: str, shown: str) -> None:
    assert escape(raw) == shown
