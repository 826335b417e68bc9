"""Time log-probabilities of sampled responses without gradient: ours, and one padded batch with full logits."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from benchmarks._machine import Need, seconds
from benchmarks._straight import StraightPolicy
from benchmarks._turns import race_each, set_allocator, show, take_turns
from benchmarks._workload import Workload, lengths, parser_of, policy_settings
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
    work = Workload.of(policy_settings(args), args.data, args.examples)
    policy = work.policy()
    tokens = work.tokens(policy)
    flops = Need.of(policy.lm.config).forward(lengths(tokens), int(tokens.action_mask.sum()))
    what = f"Scoring {args.examples} responses, {sum(lengths(tokens))} tokens"
    show(what, race_each(["score", *argv], args.rounds, args.against), flops, work.settings.torch_dtype, "logprobs")
    return 0


def side(args: argparse.Namespace) -> Any:
    """Return a contender's turn."""
    work = Workload.of(policy_settings(args), args.data, args.examples)
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
