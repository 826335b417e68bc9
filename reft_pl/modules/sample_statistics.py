"""Statistics of sampled solutions that every stage logs, by TensorBoard name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reft_pl.formats.answers import is_correct
from reft_pl.formats.parsing import BACKEND
from reft_pl.formats.shortcuts import is_constant_of, letter_from_another_value, stands_in
from reft_pl.strategies.ranks import Part
from reft_pl.types import Rollout, Sample, Status, StopReason


def sample_statistics(rollout: Rollout) -> dict[str, Part]:
    """Compute mean reward and response length, and accuracy, truncation and execution statuses as fractions of all samples.

    Each value is this rank's part of the mean: the sum and the number of samples. Means of rewards are over samples with a
    reward; ``rollout/unrewarded`` is the share without one. With several rewards, ``reward/NAME`` is the mean of each.
    """
    samples, rewards = [sample for sample, _ in rollout.sampled], [r for sample, r in rollout.sampled if sample.rewarded]
    statuses = Counter(sample.result.status for sample in samples)
    sums = {
        "rollout/unrewarded": len(samples) - len(rewards),
        "rollout/accuracy": sum(map(is_correct, samples)),
        "rollout/response_tokens": sum(len(sample.completion.token_ids) for sample in samples),
        "rollout/truncated": sum(s.completion.stop is StopReason.LENGTH for s in samples),
        "rollout/left_out": len(samples) - len(rollout.samples),
        **{f"status/{status.value}": statuses[status] for status in Status},
    }
    parts: dict[str, Part] = {"rollout/reward": (sum(rewards), len(rewards))}
    parts |= {name: (total, len(samples)) for name, total in sums.items()} | reward_statistics(samples)
    return parts | shortcut_statistics([sample for sample in samples if is_correct(sample)])


def reward_statistics(samples: Sequence[Sample]) -> dict[str, Part]:
    """Return each of several rewards' part of its mean, by name; empty for a single reward, which ``rollout/reward`` shows."""
    found: dict[str, list[float]] = {}
    for name, value in (item for sample in samples if len(sample.rewards) > 1 for item in sample.rewards.items()):
        found.setdefault(name, []).extend([] if value is None else [value])
    return {f"reward/{name}": (sum(values), len(values)) for name, values in found.items()}


def shortcut_statistics(correct: Sequence[Sample]) -> dict[str, Part]:
    """Compute shares of correct samples that may have skipped the reasoning (``formats/shortcuts.py``).

    ``shortcut/in_question``: the answer is a number in the question. ``shortcut/constant``: the answer is a constant in the
    program that returned it. ``shortcut/letter``: the letter is correct, but the calculation in words ends in a
    value other than that option's. A share without a decidable sample is omitted.
    """
    verdicts: dict[str, list[bool]] = {"in_question": [], "constant": [], "letter": []}
    for sample in correct:
        value, question = sample.result.value, sample.problem.question
        in_words = sample.result.backend == BACKEND
        if isinstance(value, str) and in_words:
            verdict = letter_from_another_value(value, question, sample.text)
            verdicts["letter"] += [] if verdict is None else [verdict]
        elif isinstance(value, float):
            verdicts["in_question"].append(stands_in(value, question))
            if not in_words:
                verdicts["constant"].append(is_constant_of(value, sample.text))
    return {f"shortcut/{name}": (sum(found), len(found)) for name, found in verdicts.items() if found}
