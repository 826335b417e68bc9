"""Time a full PPO iteration on SVAMP: ours under the Trainer, and a hand-written loop.

Both sample 32 questions, run the programs, score under policy and reference, and make two passes of updates over mini-batches
of 8 with AdamW on float32 masters. Peak memory is reported without weights and optimizer, which both sides hold.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Trainer

from benchmarks._machine import Need, matmul_peak
from benchmarks._straight import StraightPolicy, advantages_of, generate, is_right, ppo_loss, run_programs
from benchmarks._turns import OURS, median, race_each, set_allocator, table, take_turns
from benchmarks._workload import MAX_TOKENS, Workload, lengths, parser_of, policy_settings
from reft_pl.cli.allocator import GivesFreedMemoryBack
from reft_pl.data.batching import collate
from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.sources import AuthorsJson
from reft_pl.formats import PythonProgram
from reft_pl.models.micro_batches import take
from reft_pl.models.optim import MasterAdamW
from reft_pl.modules import PPOModule, RolloutCallback
from reft_pl.rollout.inprocess.sampler import InProcessSampler

LR, MINI, EPOCHS = 1e-7, 8, 2
PHASES = ("rollout", "execute", "score", "update")


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = parser_of("ppo_iteration", __doc__)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help="tokens of a question and its response")
    parser.add_argument("--rescore", default=True, action=argparse.BooleanOptionalAction, help="our side's model.rescore")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.side:
        set_allocator()
        return take_turns((ours if args.side == "ours" else straight)(args))
    reports = race_each(["ppo_iteration", *argv], args.rounds, args.against)
    peak, base, rows = matmul_peak(getattr(torch, args.dtype)), median(reports[OURS.label]), []
    for label, r in reports.items():
        memory = (r[-1]["peak_bytes"] - r[-1]["resident_bytes"]) / 2**30
        each = " / ".join(f"{median(r, phase):.1f}" for phase in PHASES)
        rate, tokens = median([{"rate": x["flops"] / x["seconds"]} for x in r], "rate"), median(r, "tokens")
        over, of_peak = f"{median(r) / base:.2f}x", f"{rate / peak:.0%}"
        rows.append((label, f"{median(r):.1f} s", each, over, of_peak, f"{tokens:.0f}", f"{memory:.1f} GiB"))
    print(f"PPO iteration, {args.questions} questions, {EPOCHS} passes, mini-batches of {MINI},")
    print(f"{args.threads} threads, {args.dtype}; matrix product peak {peak / 1e9:.0f} GFLOP/s, at which ours would need")
    print(f"{median(reports[OURS.label], 'flops') / peak:.1f} s; median of {args.rounds} rounds in turn\n")
    head = (
        "",
        "iteration",
        "rollout / execute / score / update (s)",
        "over ours",
        "of peak",
        "tokens",
        "peak beyond weights and optimizer",
    )
    print(table(rows, head))
    print(json.dumps(reports))
    return 0


def flops(config: Any, lengths: list[int], actions: int, *, rescore: bool = True) -> float:
    """Return FLOPs of an iteration: sampling, scoring, updates; without padding, with the head only at actions."""
    need = Need.of(config)
    return (2 + rescore) * need.forward(lengths, actions) + EPOCHS * need.update(lengths, actions)


def resident(policy: torch.nn.Module, size: int) -> int:
    """Return bytes of policy, reference and gradients (``size`` per weight), two float32 moments, and masters for bfloat16."""
    return sum(p.numel() for p in policy.parameters()) * (3 * size + (8 if size == 4 else 12))


class Watch(RolloutCallback):
    """Time the iteration under the Trainer and record the module's figures."""

    def __init__(self, rescore: bool) -> None:
        self.rescore = rescore
        self.started = 0.0
        self.report: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.started = time.perf_counter()

    def on_rollout_end(self, trainer: Trainer, module: Any, rollout: Any) -> None:
        rows, actions = lengths(rollout.tokens), int(rollout.tokens.action_mask.sum())
        needed = flops(module.policy.lm.config, rows, actions, rescore=self.rescore)
        self.report |= {"tokens": sum(rows), "actions": actions, "flops": needed}

    def on_update_end(self, trainer: Trainer, module: Any, statistics: Any) -> None:
        self.report |= {phase: statistics[f"seconds/{phase}"] for phase in PHASES}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.report["seconds"] = time.perf_counter() - self.started


def ours(args: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """Run the Trainer in each turn, for one epoch of one batch."""
    module = PPOModule(
        policy_settings(args),
        optimizer=lambda p: MasterAdamW(p, lr=LR),
        ppo_epochs=EPOCHS,
        minibatch_size=MINI,
        micro_batch_tokens=args.micro_batch_tokens,
        sampler=InProcessSampler(64),
        rescore=args.rescore,
    )
    folder = tempfile.TemporaryDirectory()
    data = ReasoningDataModule(
        train=[AuthorsJson(args.data, limit=args.questions)],
        format=PythonProgram(),
        tokenizer=args.model,
        batch_size=args.questions,
        max_prompt_tokens=args.max_tokens - 1,
        max_tokens=args.max_tokens,
        cache_dir=folder.name,
        holdout=0,
    )
    watch = Watch(args.rescore)
    trainer = Trainer(
        default_root_dir=folder.name, max_epochs=0, callbacks=[watch, GivesFreedMemoryBack()], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip

    def turn() -> dict[str, Any]:
        trainer.fit_loop.max_epochs = (trainer.fit_loop.max_epochs or 0) + 1
        trainer.fit(module, datamodule=data)
        return {**watch.report, "resident_bytes": resident(module.policy, policy_settings(args).torch_dtype.itemsize)}

    return turn


def straight(args: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """Run the hand-written iteration."""
    work = Workload.of(policy_settings(args), args.data, args.questions)
    policy = StraightPolicy(work.policy().lm)
    reference = StraightPolicy(work.policy().lm)
    optimizer = MasterAdamW(policy.parameters(), lr=LR)
    codec = work.codec
    prompts = [codec.prompt_ids(p) for p in work.problems]

    def turn() -> dict[str, Any]:
        marks = [time.perf_counter()]
        responses = generate(policy.lm, prompts, codec.eos_id, codec.pad_id, args.max_tokens)
        marks.append(time.perf_counter())
        texts = [codec.response_text(p, r) for p, r in zip(work.problems, responses, strict=True)]
        values = run_programs(work.problems, texts)
        outcome = torch.tensor([is_right(v, p.answer) for v, p in zip(values, work.problems, strict=True)])
        marks.append(time.perf_counter())
        sequences = [(*p, *r) for p, r in zip(prompts, responses, strict=True)]
        tokens = collate(sequences, [len(p) for p in prompts], codec.pad_id)
        mask = tokens.action_mask[:, :-1]
        with torch.no_grad():
            old, old_values = policy(tokens)
            ref, _ = reference(tokens, values=False)
        advantages, returns = advantages_of(outcome, old, ref, old_values, mask)
        marks.append(time.perf_counter())
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(prompts)).split(MINI):
                part = take(tokens, rows)
                columns = slice(part.input_ids.shape[1] - 1)
                picked = (x[rows, columns] for x in (old, old_values, advantages, returns))
                loss = ppo_loss(policy, part, *picked)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        marks.append(time.perf_counter())
        taken = (after - before for before, after in pairwise(marks))
        phases = dict(zip(PHASES, taken, strict=True))
        figures = {
            "tokens": sum(map(len, sequences)),
            "actions": sum(map(len, responses)),
            "flops": flops(policy.lm.config, lengths(tokens), sum(map(len, responses))),
            "resident_bytes": resident(policy, work.settings.torch_dtype.itemsize),
        }
        return {"seconds": marks[-1] - marks[0], **phases, **figures}

    return turn
