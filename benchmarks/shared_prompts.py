"""Time scores and an update of groups of samples: behind one copy of their prompt, and as rows that repeat it.

The tokens are random, with the lengths that SVAMP or GSM8K programs have: every question's prompt and response within a fifth
of the mean. Both sides run our code on the same tokens, and their losses must agree.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from benchmarks._machine import seconds
from benchmarks._turns import OURS, Contender, median, race, set_allocator, table, take_turns
from benchmarks._workload import parser_of, policy_settings
from reft_pl.data.batching import collate
from reft_pl.models.loading import load_policy
from reft_pl.models.micro_batches import micro_batches, take
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score, score_in_batches
from reft_pl.types import TokenBatch

LENGTHS = {"svamp": (91, 61), "gsm8k": (250, 130)}
"""Mean tokens of a prompt and of a response."""

ROWS = Contender("rows", "rows", OURS.our_allocator)
PHASES = ("score", "update")


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = parser_of("shared_prompts", __doc__)
    parser.set_defaults(model="models/smollm2-135m")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4, help="samples per question")
    parser.add_argument("--lengths", choices=tuple(LENGTHS), default="svamp")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.side:
        set_allocator()
        return take_turns(side(args))
    reports = race(["shared_prompts", *argv], args.rounds, [OURS, ROWS])
    figures = {label: r[0]["loss"] for label, r in reports.items()}
    if abs(figures[OURS.label] - figures[ROWS.label]) > 0.02 * abs(figures[ROWS.label]):
        raise SystemExit(f"contenders do not do the same: the loss is {figures}")
    rows = []
    for label, r in reports.items():
        times = [f"{median(r, phase):.2f} s" for phase in PHASES]
        over = [f"{median(r, phase) / median(reports[OURS.label], phase):.2f}x" for phase in PHASES]
        rows.append((label, f"{r[0]['tokens']:,}", *times, *over, f"{r[-1]['peak_bytes'] / 2**30:.1f} GiB"))
    print(f"{args.questions} questions with {args.samples} samples, lengths of {args.lengths},")
    print(f"{args.threads} threads, {args.dtype}; median of {args.rounds} rounds in turn\n")
    print(table(rows, ("", "tokens computed", *PHASES, *(f"{phase} over ours" for phase in PHASES), "peak memory")))
    print(json.dumps(reports))
    return 0


def groups(args: argparse.Namespace, vocabulary: int, pad: int) -> TokenBatch:
    """Return random groups of samples, the same on both sides."""
    generator = torch.Generator().manual_seed(0)

    def drawn(mean: int) -> list[int]:
        length = int(torch.randint(mean - mean // 5, mean + mean // 5 + 1, (), generator=generator))
        return torch.randint(vocabulary, (length,), generator=generator).tolist()

    prompt, response = LENGTHS[args.lengths]
    prompts = [drawn(prompt) for _ in range(args.questions)]
    rows = [(ids, drawn(response)) for ids in prompts for _ in range(args.samples)]
    return collate([(*ids, *written) for ids, written in rows], [len(ids) for ids, _ in rows], pad)


def side(args: argparse.Namespace) -> Any:
    """Return a contender's turn."""
    settings = policy_settings(argparse.Namespace(**{**vars(args), "side": "ours"}))  # both sides compile
    policy: Policy = load_policy(settings)
    policy.shares_prompts = args.side == "ours"
    tokens = groups(args, policy.vocab_size, pad=0)
    distinct = int(tokens.attention_mask.sum())
    if args.side == "ours":
        prompts = tokens.attention_mask.sum(1) - tokens.action_mask.sum(1)
        distinct -= int((prompts.view(-1, args.samples)[:, 1:]).sum())

    def turn() -> dict[str, Any]:
        losses: list[float] = []

        def update() -> None:
            for rows in micro_batches(tokens, args.micro_batch_tokens, shared=policy.shares_prompts):
                loss = -score(policy, take(tokens, rows)).logprobs.sum() / tokens.action_mask.sum()
                loss.backward()
                losses.append(float(loss.detach()))
            policy.zero_grad()

        taken = {
            "score": seconds(lambda: score_in_batches(policy, tokens, args.micro_batch_tokens)),
            "update": seconds(update),
        }
        return {"seconds": sum(taken.values()), **taken, "loss": sum(losses), "tokens": distinct}

    return turn
