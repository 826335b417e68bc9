"""Rollouts with vLLM, in the trainer's process or on a server over HTTP; vLLM is imported on first use."""

from reft_pl.rollout.vllm.remote import VLLMServerSampler
from reft_pl.rollout.vllm.sampler import VLLMSampler

__all__ = ["VLLMSampler", "VLLMServerSampler"]
