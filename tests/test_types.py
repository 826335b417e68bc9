"""Records that refuse invalid values."""

import pytest

from reft_pl.types import SampleRequest, SamplingParams


@pytest.mark.parametrize(("prompt", "room"), [((), 5), ((1, 2), 0)])
def test_a_request_without_a_prompt_or_room_is_refused(prompt: tuple[int, ...], room: int) -> None:
    with pytest.raises(ValueError, match="request 'q' has an empty prompt or no room"):
        SampleRequest("q", prompt, SamplingParams(room), eos_ids=())
