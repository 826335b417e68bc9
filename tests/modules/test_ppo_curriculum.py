"""PPO from prefixes of the annotated programs."""

from pathlib import Path
from typing import Any

import pytest

from reft_pl.data.stories.source import StorySource
from reft_pl.errors import UserError
from tests.modules.iteration import iterate

ROOM: dict[str, Any] = {"max_prompt_tokens": 290, "max_tokens": 300}


def test_given_lines_are_prompt_and_shrink_to_none(micro_model: Path, tmp_path: Path) -> None:
    module, recorder = iterate(tmp_path, micro_model, batches=4, prefix_curriculum=0.5, samples_per_problem=2, data=ROOM)
    given = [[sample.problem.given_lines for sample in rollout.samples] for rollout in recorder.rollouts]
    assert max(given[0]) >= 2
    assert given[2] == given[3] == [0] * 16
    assert all(lines[::2] == lines[1::2] for lines in given), "all samples of a question hold the same lines"
    assert [round(s["rollout/given_share"], 2) for s in recorder.statistics] == [1.0, 0.5, 0.0, 0.0]
    for rollout in recorder.rollouts:
        for row, sample in enumerate(rollout.samples):
            actions = rollout.tokens.action_mask[row].nonzero().flatten()
            assert actions[0] == len(sample.prompt_ids) - 1, "given lines carry no loss"
            assert sample.text.startswith(module.problems.codec.format.given_text(sample.problem)[:-1])


def test_problems_without_programs_are_refused(micro_model: Path, tmp_path: Path) -> None:
    data = {"train": [StorySource("train", 8, solutions=False)]}
    with pytest.raises(UserError, match=r"model\.prefix_curriculum is 0\.5, but no training problem has an annotated program"):
        iterate(tmp_path, micro_model, prefix_curriculum=0.5, data=data)
    with pytest.raises(UserError, match="is a share of the run: set it between 0 and 1"):
        iterate(tmp_path, micro_model, prefix_curriculum=1.5)
