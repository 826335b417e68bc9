"""Group statistics: hand-computed cases, and their definitions."""

import pytest
import torch

from reft_pl.rl.groups import centred_in_group, leave_one_out, normalised_in_group, relative_to_mean, varied_groups

X = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)  # two groups of three


def test_hand_computed() -> None:
    torch.testing.assert_close(centred_in_group(X, 3), torch.tensor([2 / 3, -1 / 3, -1 / 3, 0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(leave_one_out(X, 3), torch.tensor([1, -0.5, -0.5, 0, 0, 0], dtype=torch.float64))
    std = (1 / 3) ** 0.5  # squares 4/9 + 1/9 + 1/9, over n - 1 = 2
    expected = torch.tensor([2 / 3, -1 / 3, -1 / 3, 0, 0, 0], dtype=torch.float64) / (std + 1e-4)
    torch.testing.assert_close(normalised_in_group(X, 3), expected)
    torch.testing.assert_close(relative_to_mean(X, 3), torch.tensor([2, -1, -1, 0, 0, 0], dtype=torch.float64))
    assert varied_groups(X, 3).tolist() == [True, False]


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ([True, True, True], True),
        ([True, True, False], True),
        ([False, True, True], False),
        ([True, False, False], False),
        ([False, False, False], False),
    ],
)
def test_only_counted_outcomes_make_a_group_varied(counted: list[bool], expected: bool) -> None:
    """Outcomes 1, 0, 0: without the first all are equal, and a single counted row has nothing to compare with."""
    assert varied_groups(X[:3], 3, torch.tensor(counted)).tolist() == [expected]


def test_leave_one_out_subtracts_the_mean_of_the_others() -> None:
    x = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i, advantage in enumerate(leave_one_out(x, 4).tolist()):
        group = range(i - i % 4, i - i % 4 + 4)
        assert advantage == pytest.approx(x[i].item() - sum(x[j].item() for j in group if j != i) / 3)


def test_incomplete_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of the group's 4 rows, got \(6,\)"):
        centred_in_group(X, 4)
