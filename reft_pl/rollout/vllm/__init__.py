"""Rollouts written by vLLM: an engine in the trainer's process, or one behind HTTP. vLLM is imported when it is used."""

from reft_pl.rollout.vllm.remote import VLLMServerSampler
from reft_pl.rollout.vllm.sampler import VLLMSampler

__all__ = ["VLLMSampler", "VLLMServerSampler"]
