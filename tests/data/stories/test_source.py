"""The story source: windows of indexed problems."""

import pytest

from reft_pl.data.stories.source import StorySource
from reft_pl.errors import UserError


def test_windows_of_a_split_agree() -> None:
    assert StorySource("train", 4, start=3).load() == StorySource("train", 10).load()[3:7]


def test_without_solutions() -> None:
    assert all(problem.solution is None for problem in StorySource("train", 5, solutions=False).load())


def test_the_name_identifies_the_problems() -> None:
    assert StorySource("unseen", 10, start=5, seed=2).name == "stories (unseen 5-14, seed 2)"


@pytest.mark.parametrize(("size", "start"), [(0, 0), (5, -1)])
def test_an_empty_or_negative_window_is_refused(size: int, start: int) -> None:
    with pytest.raises(UserError, match="size >= 1 and start >= 0"):
        StorySource("train", size, start=start)
