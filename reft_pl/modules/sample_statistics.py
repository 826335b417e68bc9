"""What every stage logs of the samples that its policy wrote, by TensorBoard name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reft_pl.formats.answers import is_correct
from reft_pl.formats.parsing import BACKEND
from reft_pl.formats.shortcuts import is_constant_of, letter_from_another_value, stands_in
from reft_pl.strategies.ranks import Part
from reft_pl.types import Rollout, Sample, Status, StopReason


def sample_statistics(rollout: Rollout) -> dict[str, Part]:
    """Mean reward and response length; accuracy, truncation and execution statuses as fractions of all that was sampled.

    Each as this rank's part of the mean: sum and number of samples.
    """
    samples, rewards = [sample for sample, _ in rollout.sampled], [reward for _, reward in rollout.sampled]
    statuses = Counter(sample.result.status for sample in samples)
    sums = {
        "rollout/reward": sum(rewards),
        "rollout/accuracy": sum(map(is_correct, samples)),
        "rollout/response_tokens": sum(len(sample.completion.token_ids) for sample in samples),
        "rollout/truncated": sum(s.completion.stop is StopReason.LENGTH for s in samples),
        "rollout/left_out": len(samples) - len(rollout.samples),
        **{f"status/{status.value}": statuses[status] for status in Status},
    }
    parts = {name: (total, len(samples)) for name, total in sums.items()}
    return parts | shortcut_statistics([sample for sample in samples if is_correct(sample)])


def shortcut_statistics(right: Sequence[Sample]) -> dict[str, Part]:
    """Shares of the right samples whose answer may not have been reasoned out (``formats/shortcuts.py``).

    ``shortcut/in_question``: the number stands in the question. ``shortcut/constant``: it stands in the program that returned
    it. ``shortcut/letter``: the right letter, after a calculation in words that ended in another value than that option's. A
    share of which no sample can be told is left out.
    """
    verdicts: dict[str, list[bool]] = {"in_question": [], "constant": [], "letter": []}
    for sample in right:
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
