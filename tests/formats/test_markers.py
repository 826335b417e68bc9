"""Answer markers: the last non-empty one counts."""

import pytest

from reft_pl.formats.markers import after_hashes, code_blocks


@pytest.mark.parametrize(
    ("response", "stated"),
    [
        ("no marker", None),
        ("#### 18", "18"),
        ("#### 18 ####", "18"),
        ("#### 18\n####", "18"),
        ("#### 17\n#### 18 ####\nbye", "18"),
        ("#### 17 #### 18", "18"),
        ("####\n\n18\nbye", "18"),
        ("##### 18", "18"),
        ("####", ""),
        ("#### \n ####", ""),
    ],
)
def test_hashes(response: str, stated: str | None) -> None:
    assert after_hashes(response) == stated


@pytest.mark.parametrize(
    ("response", "blocks"),
    [
        ("```python\na\n```", ["a\n"]),
        ("```\na\n```\n``` py \nb", ["a\n", "b"]),
        ("```Python3\na\n```", ["a\n"]),
        ("```bash\nls\n```\ntext\n", []),
        ("```python\r\na\r\n```\r\n", ["a\n"]),
        ("  ```python\n  a\n  ```", ["  a\n"]),
        ("```x = 1```\ntext", []),
        ("```python", []),
    ],
)
def test_code_blocks(response: str, blocks: list[str]) -> None:
    assert list(code_blocks(response)) == blocks
