"""One PPO iteration, from log-probabilities to loss, against golden values from the reference implementation."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reft_pl.rl.estimators import GAE, Experience
from reft_pl.rl.kl import KLPenalty, k1_kl, sequence_kl
from reft_pl.rl.losses import clipped_value_loss
from reft_pl.rl.masks import at_last_action, sequence_mean, token_mean, zero_outside
from reft_pl.rl.policy_losses import PPOClip
from reft_pl.rl.statistics import explained_variance


def action_mask(input_ids: Tensor, prompt_length: int, eos_id: int) -> Tensor:
    """From the last prompt token to the token before EOS; the last action of a truncated row is its last token."""
    mask = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, ids in zip(mask, input_ids.tolist(), strict=True):
        response = ids[prompt_length:]
        last = prompt_length + (response.index(eos_id) if eos_id in response else len(response) - 1)
        row[prompt_length - 1 : last] = True
    return mask


def padded(logprobs: list[list[float]]) -> Tensor:
    """[B, T-1] to [B, T]: no token comes after the last, so the value there must not matter."""
    return torch.nn.functional.pad(torch.tensor(logprobs, dtype=torch.float64), (0, 1), value=float("nan"))


@pytest.mark.parametrize("case", range(5))
def test_golden_ppo(shared: Path, case: int) -> None:
    cases: list[dict[str, Any]] = json.loads((shared / "golden" / "ppo.json").read_text())["cases"]
    assert len(cases) == 5
    settings, inputs, golden = (cases[case][key] for key in ("settings", "inputs", "expected"))

    def check(actual: Tensor, name: str) -> None:
        expected = torch.tensor(golden[name], dtype=torch.float64)
        if expected.dim():
            expected = zero_outside(expected, mask)  # compare only inside the mask
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6, msg=lambda text: f"{name}: {text}")

    mask = action_mask(torch.tensor(inputs["input_ids"]), settings["prompt_length"], settings["eos_token_id"])
    assert torch.equal(mask, torch.tensor(golden["action_mask"]).bool())
    old, ref, new = (padded(inputs[key]) for key in ("old_logprobs", "ref_logprobs", "new_logprobs"))
    outcome, old_values, new_values = (
        torch.tensor(inputs[key], dtype=torch.float64) for key in ("outcome_reward", "old_values", "new_values")
    )

    kl_rewards = KLPenalty().rewards(old, ref, mask, settings["kl_coef"])
    experience = Experience(outcome, kl_rewards, old_values, mask)
    check(experience.rewards, "rewards")
    check(at_last_action(outcome, mask), "score_rewards")
    check(-k1_kl(old, ref, mask), "kl_rewards")  # the reference stores it without the coefficient
    check(sequence_kl(old, ref, mask).mean(), "mean_sequence_kl")

    estimator = GAE(settings["gamma"], settings["lam"], whiten=False)
    advantages, returns = estimator.estimate(experience)
    check(advantages, "advantages")
    check(returns, "returns")
    check(explained_variance(old_values, returns, mask), "value_explained_variance")
    if settings["adv_whitening"] != "none":
        advantages, _ = GAE(settings["gamma"], settings["lam"]).estimate(experience)
    if golden["advantages_whitened"] is not None:
        check(advantages, "advantages_whitened")

    loss = PPOClip(settings["clip_range"])
    ratio = loss.ratio(new, old, mask)
    check(token_mean(ratio, mask), "mean_ratio")
    policy_loss = sequence_mean(loss.per_action(ratio, advantages, mask), mask)
    value_terms = clipped_value_loss(new_values, old_values, returns, mask, settings["value_clip_range"])
    value_loss = sequence_mean(value_terms, mask)
    check(policy_loss, "policy_loss")
    check(value_loss, "value_loss")
    check(policy_loss + settings["vf_coef"] * value_loss, "loss")


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("share", [0.25, 0.6, 0.9, 1.3])
def test_explained_variance_of_golden_returns_above_its_floor(shared: Path, case: int, share: float) -> None:
    """The golden values are so poor that the floor of -1 hides the formula; these values track the returns."""
    golden = json.loads((shared / "golden" / "ppo.json").read_text())["cases"][case]["expected"]
    mask = torch.tensor(golden["action_mask"]).bool()
    returns = torch.tensor(golden["returns"], dtype=torch.float64)
    noise = torch.randn(returns.shape, generator=torch.Generator().manual_seed(case), dtype=torch.float64)
    values = share * returns + 0.1 * returns[mask].std() * noise + 3.0
    errors = (returns - values)[mask].tolist()
    expected = 1 - statistics.variance(errors) / statistics.variance(returns[mask].tolist())
    assert -1 < expected < 1
    outside = torch.where(mask, 0.0, torch.nan)
    assert explained_variance(values + outside, returns + outside, mask).item() == pytest.approx(expected)
