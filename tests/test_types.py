"""Records that refuse invalid values."""

import pickle

import pytest

from reft_pl.types import Problem, SampleRequest, SamplingParams


@pytest.mark.parametrize(("prompt", "room"), [((), 5), ((1, 2), 0)])
def test_a_request_without_a_prompt_or_room_is_refused(prompt: tuple[int, ...], room: int) -> None:
    with pytest.raises(ValueError, match="request 'q' has an empty prompt or no room"):
        SampleRequest("q", prompt, SamplingParams(room), eos_ids=())


def test_columns_are_read_only_and_survive_other_processes() -> None:
    problem = Problem("q", "?", 1.0, columns={"tests": [1, 2]})
    other = pickle.loads(pickle.dumps(problem))
    assert other == problem != Problem("q", "?", 1.0)
    assert dict(other.columns) == {"tests": [1, 2]}
    assert len({problem, other}) == 1, "problems are keys of sets, whatever their columns hold"
    with pytest.raises(TypeError, match="item assignment"):
        problem.columns["tests"] = []  # type: ignore[index]
