"""What every stage logs of the samples that its policy wrote, by TensorBoard name."""

from __future__ import annotations

from collections import Counter

from reft_pl.formats.answers import is_correct
from reft_pl.types import Rollout, Status, StopReason


def sample_statistics(rollout: Rollout) -> dict[str, float]:
    """Mean reward and response length; accuracy, truncation and execution statuses as fractions of the samples."""
    samples, n = rollout.samples, len(rollout.samples)
    statuses = Counter(sample.result.status for sample in samples)
    return {
        "rollout/reward": float(rollout.outcome.mean()),
        "rollout/accuracy": sum(map(is_correct, samples)) / n,
        "rollout/response_tokens": float(rollout.tokens.action_mask.sum()) / n,
        "rollout/truncated": sum(s.completion.stop is StopReason.LENGTH for s in samples) / n,
        **{f"status/{status.value}": statuses[status] / n for status in Status},
        "rollout/second_sandbox": sum(sample.result.backend == "cpython" for sample in samples) / n,
    }
