import pytest

from reft_pl.evaluation.markdown import code_span, fenced, table


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("x = 1\n", "```python\nx = 1\n```"),
        ("a\n```\n# not a heading\n```\n", "````python\na\n```\n# not a heading\n```\n````"),
        ("`````", "``````python\n`````\n``````"),
        ("\x1b[2J", "```python\n\\x1b[2J\n```"),
    ],
)
def test_a_block_ends_where_its_text_ends(text: str, block: str) -> None:
    assert fenced(text, "python") == block


@pytest.mark.parametrize(
    ("text", "span"), [("a", "`a`"), ("a`b", "``a`b``"), ("`a`", "`` `a` ``"), ("two\nlines", "`two lines`"), ("a|b", "`a|b`")]
)
def test_a_span_holds_backticks(text: str, span: str) -> None:
    assert code_span(text) == span


def test_a_cell_may_hold_what_separates_cells() -> None:
    assert table(["a", "b"], [["`x|y`", "1"]]) == "| a | b |\n| --- | --- |\n| `x\\|y` | 1 |"
