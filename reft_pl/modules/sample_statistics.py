"""What every stage logs of the samples that its policy wrote, by TensorBoard name."""

from __future__ import annotations

from collections import Counter

from reft_pl.formats.answers import is_correct
from reft_pl.types import Rollout, Status, StopReason


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
    }
