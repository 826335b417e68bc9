import pytest

from reft_pl.formats.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
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
def test_what_is_not_shown_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
