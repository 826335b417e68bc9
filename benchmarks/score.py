"""Log-probabilities of sampled responses without gradient: ours, and one padded batch with full logits."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from benchmarks._machine import Need, matmul_peak, seconds
from benchmarks._straight import StraightPolicy
from benchmarks._turns import CONTENDERS, median, race, set_allocator, table, take_turns
from benchmarks._workload import Workload, lengths, parser_of
from reft_pl.models.scoring import score_in_batches


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = parser_of("score", __doc__)
    parser.add_argument("--examples", type=int, default=32)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.side:
        set_allocator()
        return take_turns(side(args))
    work = Workload.of(args, args.examples)
    policy = work.policy()
    tokens = work.tokens(policy)
    flops = Need.of(policy.lm.config).forward(lengths(tokens), int(tokens.action_mask.sum()))
    peak = matmul_peak(torch.bfloat16)
    reports = race(CONTENDERS, ["score", *argv], args.rounds)
    sums = {label: r[0]["logprobs"] for label, r in reports.items()}
    assert max(sums.values()) - min(sums.values()) < 0.02 * abs(min(sums.values())), sums
    ours = median(reports["reft-pl"])
    rows = [
        (label, f"{median(r):.2f} s", f"{flops / median(r) / peak:.0%}", f"{median(r) / ours:.2f}x")
        for label, r in reports.items()
    ]
    print(f"Scoring {args.examples} responses, {sum(lengths(tokens))} tokens, {args.threads} threads, bf16;")
    print(f"matrix product peak {peak / 1e9:.0f} GFLOP/s, median of {args.rounds} rounds in turn\n")
    print(table(rows, ("", "time", "of peak", "over ours")))
    print(
        json.dumps(
            {"peak_flops": peak, "needed_flops": flops, "seconds": {k: [r["seconds"] for r in v] for k, v in reports.items()}}
        )
    )
    return 0


def side(args: argparse.Namespace) -> Any:
    """A contender's turn."""
    work = Workload.of(args, args.examples)
    policy = work.policy()
    tokens = work.tokens(policy)
    model = StraightPolicy(policy.lm)

    @torch.no_grad()
    def straight() -> torch.Tensor:
        return model(tokens, values=False)[0] * tokens.action_mask[:, :-1]

    def ours() -> torch.Tensor:
        return score_in_batches(policy, tokens, args.micro_batch_tokens).logprobs

    def turn() -> dict[str, Any]:
        results: list[torch.Tensor] = []
        run = ours if args.side == "ours" else straight
        taken = seconds(lambda: results.append(run()))
        return {"seconds": taken, "logprobs": float(results[0].sum())}

    return turn
