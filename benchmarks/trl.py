"""Race GRPO against TRL's GRPOTrainer: the same model, questions, samples, optimizer steps, reward, lengths and precision.

A turn is one rollout and its optimizer steps. Both sides run programs in our sandbox and reward them by the same rule. After
the last turn both models answer the validation questions greedily. ``pip install 'reft-pl[benchmarks]'`` installs TRL.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from benchmarks._turns import OURS, Contender, Turns, median, race, set_allocator, table
from benchmarks._workload import parser_of, policy_settings
from reft_pl.cli.allocator import GivesFreedMemoryBack
from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.sources import AuthorsJson, ProblemSource
from reft_pl.data.stories.source import StorySource
from reft_pl.formats import PythonProgram
from reft_pl.formats.answers import answers_equal
from reft_pl.models.loading import load_policy
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.policy import Policy
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import PPOModule, RolloutCallback
from reft_pl.reward.answer import AnswerReward
from reft_pl.rl.estimators import GRPO
from reft_pl.rl.kl import KLPenalty
from reft_pl.rollout.collector import ResponseExecution
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Problem, SampleRequest, SamplingParams

TRL = Contender("trl", "TRL", True)
CONTINUOUS = Contender("continuous", "TRL, continuous batching", True)
STEPS, KL = 4, 0.01
"""Optimizer steps of a rollout, and the weight of the KL penalty (k3, in the loss)."""


def main(argv: list[str]) -> int:
    """Print a table, and JSON on the last line."""
    parser = parser_of("trl", __doc__)
    parser.set_defaults(model="runs/sft/hf", data="stories", dtype="float32", attention="sdpa", compile=False)
    parser.add_argument("--questions", type=int, default=64, help="questions of a rollout")
    parser.add_argument("--samples", type=int, default=4, help="samples per question")
    parser.add_argument("--per-pass", type=int, default=64, help="samples that go through TRL's model at once in an update")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--results", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.side:
        set_allocator()
        {"ours": ours, "trl": trl, "continuous": trl}[args.side](args)
        return 0
    found = [c for c in (OURS, TRL, CONTINUOUS) if c is OURS or args.against in c.label]
    with tempfile.TemporaryDirectory() as results:
        reports = race(["trl", *argv, "--results", results], args.rounds, found)
        top1 = {c.label: evaluated(args, f"{results}/{c.side}") for c in found}
    print(f"GRPO, {args.questions} questions with {args.samples} samples, {STEPS} optimizer steps a rollout,")
    print(f"{args.threads} threads, {args.dtype}; {args.rounds} rounds in turn, after one that does not count\n")
    rows = []
    for label, r in reports.items():
        worst = max(x["seconds"] for x in r)
        rate = median([{"rate": x["tokens"] / x["seconds"]} for x in r], "rate")
        over = median(r) / median(reports[OURS.label])
        memory = r[-1]["peak_bytes"] / 2**30
        rows.append(
            (
                label,
                f"{median(r):.1f} s",
                f"{worst:.1f} s",
                f"{over:.2f}x",
                f"{rate:,.0f}",
                f"{memory:.1f} GiB",
                f"{top1[label]:.1%}",
            )
        )
    print(table(rows, ("", "median", "worst", "over ours", "sampled tokens/s", "peak memory", "Top-1 afterwards")))
    print(json.dumps(reports))
    return 0


def sources(args: argparse.Namespace) -> tuple[ProblemSource, list[ProblemSource] | None]:
    """Return the training source, and the validation source; None holds training questions out."""
    if args.data == "stories":
        return StorySource("train", size=2000), [StorySource("validation", size=300)]
    return AuthorsJson(args.data), None


def data_of(args: argparse.Namespace, folder: str) -> ReasoningDataModule:
    """Return the data module of both sides."""
    train, validation = sources(args)
    return ReasoningDataModule(
        train=[train], validation=validation, holdout=0 if validation else 200, format=PythonProgram(), tokenizer=args.model,
        batch_size=args.questions, max_prompt_tokens=args.max_tokens - 1, max_tokens=args.max_tokens, cache_dir=folder,
    )  # fmt: skip


class Watch(RolloutCallback):
    """Takes a turn for every training batch under the Trainer, and keeps the model after the last."""

    def __init__(self, turns: Turns, args: argparse.Namespace) -> None:
        self.turns, self.args = turns, args
        self.started, self.tokens = 0.0, 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.turns.wait()
        self.started = time.perf_counter()

    def on_rollout_end(self, trainer: Trainer, module: Any, rollout: Any) -> None:
        self.tokens = int(rollout.tokens.action_mask.sum())

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        taken = time.perf_counter() - self.started
        if batch_idx == self.args.rounds:
            pl_module.policy.lm.save_pretrained(f"{self.args.results}/ours")
        self.turns.report({"seconds": taken, "tokens": self.tokens})


def ours(args: argparse.Namespace) -> None:
    """Run our Trainer, a turn per batch."""
    module = PPOModule(
        policy_settings(args),
        optimizer=lambda p: MasterAdamW(p, lr=args.lr),
        reward=AnswerReward(partial=0.0),
        advantages=GRPO(),
        kl=KLPenalty(KL, "k3", "loss"),
        samples_per_problem=args.samples,
        ppo_epochs=1,
        minibatch_size=args.questions * args.samples // STEPS,
        micro_batch_tokens=args.micro_batch_tokens,
        sampler=InProcessSampler(256),
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder, max_epochs=1, limit_train_batches=args.rounds + 1, limit_val_batches=0,
            callbacks=[Watch(Turns(), args), GivesFreedMemoryBack()], accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data_of(args, folder))


def trl(args: argparse.Namespace) -> None:
    """Run TRL's trainer, a turn per generation and its optimizer steps."""
    from datasets import Dataset  # noqa: PLC0415 (TRL is installed for this benchmark alone)
    from transformers import TrainerCallback  # noqa: PLC0415
    from trl import GRPOConfig, GRPOTrainer  # noqa: PLC0415

    folder = tempfile.TemporaryDirectory()
    data = data_of(args, folder.name)
    data.setup("fit")
    problems = {problem.id: problem for problem in data.train_problems}
    prompts = {name: data.codec.tokenizer.decode(data.codec.prompt_ids(problem)) for name, problem in problems.items()}
    for name in list(prompts)[:50]:
        assert tuple(data.codec.tokenizer(prompts[name])["input_ids"]) == tuple(data.codec.prompt_ids(problems[name]))
    turns, sampled = Turns(), {"tokens": 0}
    reward = judge(data)

    def correct(prompts: list[str], completions: list[str], name: list[str], completion_ids: Any = (), **_: Any) -> list[float]:
        sampled["tokens"] = sum(map(len, completion_ids))
        chosen = [problems[one] for one in name]
        return reward(chosen, [data.codec.response_text(p, ids) for p, ids in zip(chosen, completion_ids, strict=True)])

    class Watching(TrainerCallback):
        started = 0.0

        def on_step_begin(self, trainer_args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % STEPS == 0:
                turns.wait()
                self.started = time.perf_counter()

        def on_step_end(self, trainer_args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % STEPS == 0:
                taken = time.perf_counter() - self.started
                if state.global_step == STEPS * (args.rounds + 1):
                    kwargs["model"].save_pretrained(f"{args.results}/{args.side}")
                turns.report({"seconds": taken, "tokens": sampled["tokens"]})

    total = args.questions * args.samples
    per_pass = min(args.per_pass, total // STEPS)
    config = GRPOConfig(
        output_dir=folder.name, use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        max_steps=STEPS * (args.rounds + 1), learning_rate=args.lr, lr_scheduler_type="constant", max_grad_norm=1.0,
        weight_decay=0.0, per_device_train_batch_size=per_pass, gradient_accumulation_steps=total // STEPS // per_pass,
        generation_batch_size=total, num_generations=args.samples, num_iterations=1, beta=KL, epsilon=0.2, loss_type="grpo",
        scale_rewards="group", use_bias_correction_kl=False, temperature=1.0, top_k=0, top_p=1.0, disable_dropout=True,
        max_completion_length=args.max_tokens - max(len(data.codec.prompt_ids(p)) for p in problems.values()),
        gradient_checkpointing=False, bf16=False, seed=1,
        model_init_kwargs={"dtype": args.dtype, "attn_implementation": args.attention},
        use_transformers_continuous_batching=args.side == "continuous",
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": prompts[name], "name": name} for name in problems])
    trainer = GRPOTrainer(model=args.model, reward_funcs=correct, args=config, train_dataset=rows, callbacks=[Watching()])
    trainer.train()


def judge(data: ReasoningDataModule) -> Callable[[Sequence[Problem], Sequence[str]], list[float]]:
    """Return a function that runs responses in one sandbox and gives 1 to correct answers, else 0."""
    sandbox, cot_format = CPythonSandbox(), data.codec.format

    def reward(problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        with sandbox.begin() as execution:
            running = ResponseExecution(cot_format, execution)
            for problem, text in zip(problems, texts, strict=True):
                running.submit(problem, text)
            found = [result.value for result in running.results()]
        return [float(answers_equal(value, problem.answer)) for value, problem in zip(found, problems, strict=True)]

    return reward


def evaluated(args: argparse.Namespace, weights: str) -> float:
    """Return greedy Top-1 of stored weights on the validation questions."""
    if not Path(weights).exists():
        print(f"{weights} was not written", file=sys.stderr)
        return float("nan")
    with tempfile.TemporaryDirectory() as folder:
        data = data_of(args, folder)
        data.setup("fit")
        policy: Policy = load_policy(PolicySettings(weights, dtype=args.dtype, attention=args.attention))
        sampler = InProcessSampler(256)
        sampler.sync(policy)
        problems = data.validation_problems
        prompts = [data.codec.prompt_ids(problem) for problem in problems]
        params = [SamplingParams(args.max_tokens - len(prompt), temperature=0.0) for prompt in prompts]
        stops = data.codec.stop_ids
        asked = [
            SampleRequest(str(i), ids, one, eos_ids=stops) for i, (ids, one) in enumerate(zip(prompts, params, strict=True))
        ]
        written = {completion.request_id: completion.token_ids for completion in sampler.stream(asked)}
        texts = [data.codec.response_text(problem, written[str(i)]) for i, problem in enumerate(problems)]
        return sum(judge(data)(problems, texts)) / len(problems)
