"""Time a rollout of SVAMP prompts: our sampler, transformers' ``generate``, and vLLM if installed, in turn.

All write responses of the same lengths, taken from a warmed-up model's responses. ``generate`` keeps decoding ended rows until
the last one ends, as it does for any caller.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
from collections.abc import Callable
from typing import Any

import torch

from benchmarks._machine import Need, matmul_peak, memory_rate, seconds
from benchmarks._straight import generate
from benchmarks._turns import OURS, Contender, chosen, median, race, set_allocator, table, take_turns
from benchmarks._workload import MAX_TOKENS, Workload, parser_of, policy_settings
from reft_pl.models.policy import Policy
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.vllm import VLLMSampler
from reft_pl.types import SampleRequest, SamplingParams

CONTENDERS = [
    OURS,
    Contender("generate", "generate, default allocator", False),
    Contender("generate", "generate, our allocator", True),
]
VLLM = Contender("vllm", "vLLM, compiled", False)


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = parser_of("rollout", __doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.set_defaults(attention="sdpa")  # for generate; our sampler uses its own
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.side:
        set_allocator()
        return take_turns(side(args))
    work = Workload.of(policy_settings(args), args.data, args.prompts)
    policy = work.policy()
    requests = same_lengths(work, policy)
    prompts, responses = [len(r.prompt_ids) for r in requests], [r.params.max_new_tokens for r in requests]
    peak, rate = matmul_peak(work.settings.torch_dtype), memory_rate()
    bound = Need.of(policy.lm.config).rollout_seconds(prompts, responses, peak, rate, work.settings.torch_dtype.itemsize)
    contenders = [*CONTENDERS, VLLM] if importlib.util.find_spec("vllm") else CONTENDERS
    reports = race(["rollout", *argv], args.rounds, chosen(contenders, args.against))
    ours, rows = median(reports[OURS.label]), []
    for label, report in reports.items():
        t = median(report)
        rows.append((label, f"{t:.2f} s", f"{sum(responses) / t:.0f}", f"{bound / t:.0%}", f"{t / ours:.2f}x"))
    print(f"{len(prompts)} responses of {min(responses)} to {max(responses)} tokens, {sum(responses)} in all;")
    print(
        f"{args.threads} threads, {args.dtype}; matrix product peak {peak / 1e9:.0f} GFLOP/s, memory {rate / 1e9:.1f} GB/s, "
        "which allow"
    )
    print(f"{bound:.2f} s; median of {args.rounds} rounds in turn\n")
    print(table(rows, ("", "time", "tokens/s", "of the bound", "over ours")))
    print(json.dumps({"peak_flops": peak, "bytes_per_second": rate, "bound_seconds": bound, "reports": reports}))
    return 0


def same_lengths(work: Workload, policy: Policy) -> list[SampleRequest]:
    """Return requests that end where the model's responses ended: at a length limit, never at EOS."""
    return [
        dataclasses.replace(request, params=SamplingParams(len(response)), eos_ids=())
        for request, response in zip(work.requests(), work.responses(policy), strict=True)
    ]


def side(args: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """Return a contender's turn."""
    work = Workload.of(policy_settings(args), args.data, args.prompts)
    policy = work.policy()
    requests = same_lengths(work, policy)
    if args.side == "generate":
        prompts = [r.prompt_ids for r in requests]
        total = max(map(len, prompts)) + max(r.params.max_new_tokens for r in requests)
        return lambda: {"seconds": seconds(lambda: generate(policy.lm, prompts, None, work.codec.pad_id, total))}
    sampler: Sampler = InProcessSampler(args.prompts)
    if args.side == "vllm":
        sampler = VLLMSampler(args.prompts, max_model_len=MAX_TOKENS)
    sampler.sync(policy)
    return lambda: {"seconds": seconds(lambda: list(sampler.stream(requests)))}
