"""Time the forward and backward pass of one optimizer step (SFT, or PPO with --ppo): ours, and padded with full logits.

All sides work on the same tokens, and their losses must agree.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks._machine import Need, seconds
from benchmarks._straight import StraightPolicy, cross_entropy, ppo_loss
from benchmarks._turns import race_each, set_allocator, show, take_turns
from benchmarks._workload import Workload, lengths, parser_of, policy_settings
from reft_pl.modules import PPOModule, SFTModule
from reft_pl.modules.ppo_statistics import UpdateStatistics
from reft_pl.types import ScoredRollout, TokenBatch


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = parser_of("update", __doc__)
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--ppo", action="store_true", help="PPO's loss instead of cross-entropy")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.side:
        set_allocator()
        return take_turns(side(args))
    work = Workload.of(policy_settings(args), args.data, args.examples)
    policy = work.policy()
    tokens = work.tokens(policy)
    flops = Need.of(policy.lm.config).update(lengths(tokens), int(tokens.action_mask.sum()))
    what = f"{'PPO' if args.ppo else 'SFT'} update of {args.examples} examples, {sum(lengths(tokens))} tokens"
    show(what, race_each(["update", *argv], args.rounds, args.against), flops, work.settings.torch_dtype, "loss")
    return 0


def side(args: argparse.Namespace) -> Any:
    """Return a contender's turn."""
    work = Workload.of(policy_settings(args), args.data, args.examples)
    policy = work.policy("shared" if args.ppo else "none")
    return (ours if args.side == "ours" else straight)(args, policy, work)


def _experience(tokens: TokenBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return synthetic old log-probabilities, values, advantages and returns, identical for all sides, [B, T]."""
    generator = torch.Generator().manual_seed(0)
    old, values, advantages, returns = torch.randn(4, *tokens.input_ids.shape, generator=generator)
    return old * 0.05 - 0.2, values * 0.1, advantages, returns * 0.3


def ours(args: argparse.Namespace, policy: Any, work: Workload) -> Any:
    """Return a turn with the modules' loss code."""
    tokens = work.tokens(policy)
    before_training = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=0))
    trainer = SimpleNamespace(world_size=1, datamodule=SimpleNamespace(codec=work.codec), fit_loop=before_training)
    settings: dict[str, Any] = {"policy": policy_settings(args), "micro_batch_tokens": args.micro_batch_tokens}
    module: Any = PPOModule(**settings) if args.ppo else SFTModule(**settings)
    module.policy, module._trainer = policy, trainer
    old, values, advantages, returns = _experience(tokens)
    rollout = ScoredRollout((), tokens, torch.zeros(len(old)), old, old, values, old, old)

    def losses() -> Any:
        if not args.ppo:
            return module.cross_entropy(tokens)
        statistics = UpdateStatistics(module.policy_loss)
        return module.losses(rollout, advantages, returns, torch.arange(len(old)), statistics)

    def turn() -> dict[str, Any]:
        total = []

        def step() -> None:
            for micro_batch in losses():
                loss = micro_batch()
                loss.backward()
                total.append(float(loss.detach()))
            policy.zero_grad()

        return {"seconds": seconds(step), "loss": sum(total)}

    return turn


def straight(args: argparse.Namespace, policy: Any, work: Workload) -> Any:
    """Return a turn with one padded batch and full logits."""
    tokens = work.tokens(policy)
    model = StraightPolicy(policy.lm)
    old, values, advantages, returns = (x[:, :-1] for x in _experience(tokens))

    def turn() -> dict[str, Any]:
        total = []

        def step() -> None:
            loss = ppo_loss(model, tokens, old, values, advantages, returns) if args.ppo else cross_entropy(model, tokens)
            loss.backward()
            total.append(float(loss.detach()))
            model.zero_grad()

        return {"seconds": seconds(step), "loss": sum(total)}

    return turn
