"""The trainer's own inference engine: continuous batching on the policy's weights, without a second copy of them."""

from reft_pl.rollout.inprocess.sampler import InProcessSampler

__all__ = ["InProcessSampler"]
