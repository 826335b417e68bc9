"""Measure how far vLLM and our sampler differ from our scorer on the same weights: greedy agreement, and nats per token.

PPO computes its ratios with the scorer. The last figure of a line is what truncated importance correction leaves: the part of
the difference beyond the cap, which stays uncorrected.
"""

from __future__ import annotations

import argparse
import dataclasses
import math

import torch

from benchmarks._workload import Workload
from reft_pl.data.batching import collate
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score_in_batches
from reft_pl.models.settings import PolicySettings
from reft_pl.rl.importance import sampler_mismatch
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.vllm import VLLMSampler
from reft_pl.types import Completion, SampleRequest, SamplingParams


def requests(work: Workload, new_tokens: int, temperature: float) -> list[SampleRequest]:
    params = SamplingParams(new_tokens, temperature)
    return [dataclasses.replace(request, params=params) for request in work.requests()]


def write(sampler: Sampler, asked: list[SampleRequest]) -> list[Completion]:
    found = {completion.request_id: completion for completion in sampler.stream(asked)}
    return [found[request.id] for request in asked]


def common_tokens(a: Completion, b: Completion) -> int:
    pairs = zip(a.token_ids, b.token_ids, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(a.token_ids), len(b.token_ids)))


def greedy(samplers: dict[str, Sampler], asked: list[SampleRequest]) -> str:
    ours, theirs = (write(sampler, asked) for sampler in samplers.values())
    equal = sum(a.token_ids == b.token_ids for a, b in zip(ours, theirs, strict=True))
    common, tokens = sum(map(common_tokens, ours, theirs)), sum(len(a.token_ids) for a in ours)
    return f"greedy: {equal} of {len(ours)} completions equal, {common} of {tokens} tokens before the first difference"


def sampled(policy: Policy, name: str, sampler: Sampler, asked: list[SampleRequest], cap: float) -> str:
    completions = write(sampler, asked)
    sequences = [(*request.prompt_ids, *c.token_ids) for request, c in zip(asked, completions, strict=True)]
    tokens = collate(sequences, [len(request.prompt_ids) for request in asked], 0)
    scored = score_in_batches(policy, tokens, max_tokens=2048).logprobs
    reported = torch.zeros_like(scored)
    reported[tokens.action_mask] = torch.tensor([logprob for c in completions for logprob in c.logprobs])
    apart = sampler_mismatch(scored, reported, tokens.action_mask)[tokens.action_mask]
    left = ((scored - reported)[tokens.action_mask] - math.log(cap)).clamp(min=0)
    return (
        f"{name}: {len(apart)} actions, mean {apart.mean():.5f} nats a token, largest {apart.max():.3f}; "
        f"weights cut at {cap:g}: {(left > 0).float().mean():.3%} of actions, {left.mean():.5f} nats a token left"
    )


def main(argv: list[str]) -> int:
    """Print three lines per dtype."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks vllm_mismatch", description=__doc__)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=150)
    parser.add_argument("--cap", type=float, default=2.0)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--compile", action="store_true", help="let vLLM compile the model, as it does in training")
    parser.add_argument("--model", default="runs/smollm2-sft/hf")
    parser.add_argument("--data", default="data/svamp_test_set.json")
    args = parser.parse_args(argv)
    for dtype in args.dtypes:
        work = Workload.of(PolicySettings(args.model, dtype=dtype), args.data, args.prompts)
        policy = work.policy()
        samplers: dict[str, Sampler] = {
            "InProcessSampler": InProcessSampler(args.prompts),
            "VLLMSampler": VLLMSampler(args.prompts, cache_gib=0.5, enforce_eager=not args.compile),
        }
        for sampler in samplers.values():
            sampler.sync(policy)
        print(f"{dtype}, {greedy(samplers, requests(work, args.new_tokens, 0.0))}", flush=True)
        for name, sampler in samplers.items():
            line = sampled(policy, name, sampler, requests(work, args.new_tokens, 1.0), args.cap)
            print(f"{dtype}, {line}", flush=True)
    return 0
