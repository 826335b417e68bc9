"""What every stage logs of the samples that its policy wrote, by TensorBoard name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reft_pl.formats.answers import is_correct
from reft_pl.formats.shortcuts import is_constant_of, letter_from_another_value, stands_in
from reft_pl.types import Rollout, Sample, Status, StopReason


def sample_statistics(rollout: Rollout) -> dict[str, float]:
    """Mean reward and response length; accuracy, truncation and execution statuses as fractions of all that was sampled."""
    samples, rewards = zip(*rollout.sampled, strict=True)
    n = len(samples)
    statuses = Counter(sample.result.status for sample in samples)
    return {
        "rollout/reward": sum(rewards) / n,
        "rollout/accuracy": sum(map(is_correct, samples)) / n,
        "rollout/response_tokens": sum(len(sample.completion.token_ids) for sample in samples) / n,
        "rollout/truncated": sum(s.completion.stop is StopReason.LENGTH for s in samples) / n,
        "rollout/left_out": 1 - len(rollout.samples) / n,
        **{f"status/{status.value}": statuses[status] / n for status in Status},
        "rollout/second_sandbox": sum(sample.result.backend == "cpython" for sample in samples) / n,
        **shortcut_statistics([sample for sample in samples if is_correct(sample)]),
    }


def shortcut_statistics(right: Sequence[Sample]) -> dict[str, float]:
    """Shares of the right samples whose answer may not have been reasoned out (``formats/shortcuts.py``).

    ``shortcut/in_question``: the number stands in the question. ``shortcut/constant``: it stands in the program that returned
    it. ``shortcut/letter``: the right letter, after a calculation that ended in another option's value. A share of which no
    sample can be told is left out.
    """
    verdicts: dict[str, list[bool]] = {"in_question": [], "constant": [], "letter": []}
    for sample in right:
        value, question = sample.result.value, sample.problem.question
        if isinstance(value, str):
            verdict = letter_from_another_value(value, question, sample.text)
            verdicts["letter"] += [] if verdict is None else [verdict]
        elif value is not None:
            verdicts["in_question"].append(stands_in(value, question))
            if sample.result.backend != "text":
                verdicts["constant"].append(is_constant_of(value, sample.text))
    return {f"shortcut/{name}": sum(found) / len(found) for name, found in verdicts.items() if found}
