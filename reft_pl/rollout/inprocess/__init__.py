"""The trainer's own inference engine: continuous batching with the policy's own weights."""

from reft_pl.rollout.inprocess.sampler import InProcessSampler

__all__ = ["InProcessSampler"]
