"""Scenarios that forked ranks run (``forked.py``); they write results to files, which the tests check."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import deepspeed  # noqa: F401 (before the ranks are forked: it takes seconds)
import torch
from forked import on_ranks
from lightning.pytorch import Trainer
from transformers import AutoTokenizer

from reft_pl.cli import (
    main,
    run_verb,  # noqa: F401 (likewise)
)
from reft_pl.data.datamodule import ReasoningDataModule
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line
from reft_pl.data.sources import ProblemSource
from reft_pl.data.stories.source import StorySource
from reft_pl.formats import PythonProgram
from reft_pl.models import scoring
from reft_pl.models.loading import load_policy
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import OnlineSelfTrainingModule, PPOModule, RerankerModule, SFTModule, StageModule
from reft_pl.reward.base import RewardFunction, WeightedReward
from reft_pl.rl.estimators import GRPO
from reft_pl.strategies import ZeRO
from reft_pl.strategies.zero import whole_weights
from reft_pl.types import Problem, Sample

torch.set_num_threads(1)


def strategy_named(name: str) -> Any:
    """``one``, ``ddp``, ``zero1`` to ``zero3``; ZeRO-3 shards even the smallest weights."""
    return {"one": "auto", "ddp": "ddp"}.get(name) or ZeRO(int(name[-1]), persistent_elements=0)


class ByTokens(RewardFunction):
    """Rewards of 0, 1/2 and 1, with some groups of equal rewards."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [sum(sample.completion.token_ids) % 3 / 2 for sample in samples]


def long_enough(completions: list[str]) -> list[float | None]:
    """None for a third of the responses."""
    return [None if len(text) % 3 == 0 else len(text) / 100 for text in completions]


async def waited_for(completions: list[str], problems: list[Problem]) -> list[float | None]:
    """None for every second problem."""
    return [
        None if int(problem.id.rpartition("_")[2]) % 2 else len(text) % 5 / 5
        for text, problem in zip(completions, problems, strict=True)
    ]


class Recorder:
    """Wrap a module's ``update`` and record weights and results of each optimizer step."""

    def __init__(self, module: StageModule) -> None:
        self.module = module
        self.update = module.update
        self.steps: list[dict[str, Any]] = []
        self.micro_batches: list[int] = []
        module.update = self.watched  # type: ignore[method-assign]

    def watched(self, micro_batches: Any) -> dict[str, float]:
        self.micro_batches.append(len(micro_batches))
        before = self.weights() if not self.steps else None
        result = self.update(micro_batches)
        self.steps.append({"result": result, "weights": self.weights(), "before": before})
        return result

    def weights(self) -> dict[str, torch.Tensor]:
        with whole_weights(self.module.trainer.strategy):
            return {name: p.detach().clone() for name, p in self.module.named_parameters()}


def make(stage: str, model: str, optimizer: str, **changes: Any) -> StageModule:
    made = {
        "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        "adam": lambda parameters: MasterAdamW(parameters, lr=1e-3),
    }
    settings: dict[str, Any] = {
        "policy": PolicySettings(model, from_scratch=stage != "reranker", dtype="float32"),
        "optimizer": made[optimizer],
        "micro_batch_tokens": 100 if stage == "reranker" else 420,
        "gradient_clip_norm": 0.5,
    }
    if stage in ("ppo", "values", "annotated"):
        settings |= {"reward": ByTokens(), "minibatch_size": 5, "ppo_epochs": 2}
    if stage == "values":
        settings |= {"value_warmup": 1, "value_lr": 1e-2}
    if stage == "annotated":
        settings |= {"annotated_coef": 0.5, "annotated_batch_size": 3, "annotated_schedule": "linear"}
    if stage == "grpo":
        settings |= {"reward": ByTokens(), "advantages": GRPO(), "samples_per_problem": 2, "filter_groups": True}
        settings |= {"max_resamples": 1, "minibatch_size": 4, "aggregation": "token"}
    if stage == "rewards":
        settings |= {"rewards": [WeightedReward(long_enough, 2.0, "long"), WeightedReward(waited_for, 0.5)]}
        settings |= {"minibatch_size": 5, "ppo_epochs": 2}
    if stage == "online":
        settings |= {"reward": ByTokens(), "minibatch_size": 3}
    classes = {"sft": SFTModule, "online": OnlineSelfTrainingModule, "reranker": RerankerModule}
    return classes.get(stage, PPOModule)(**settings | changes)


def questions(stage: str, model: str, folder: str) -> ReasoningDataModule:
    """15 training questions; for the reranker 15 sampled solutions of different lengths."""
    common: dict[str, Any] = {"format": PythonProgram(), "tokenizer": model, "batch_size": 8, "cache_dir": f"{folder}/cache"}
    if stage == "reranker":
        path = Path(folder) / "samples.jsonl"
        texts = [f"def solution():\n    return {'1 + ' * (i % 5)}{i}" for i in range(15)]
        items = [
            SampledQuestion(f"q_{i}", f"What is {i}?", 1.0, (Prediction(t, 1.0, i % 3 == 0),)) for i, t in enumerate(texts)
        ]
        path.write_text("".join(map(to_line, items)))
        return ReasoningDataModule(samples={"train": str(path)}, **common)
    limit = 200 if stage in ("ppo", "values", "annotated", "grpo", "rewards", "online") else 400
    bare = 6 if stage == "annotated" else 0
    train: list[ProblemSource] = [StorySource("train", 15 - bare, start=bare)]
    if bare:
        train.append(StorySource("train", bare, solutions=False))
    return ReasoningDataModule(train=train, max_prompt_tokens=190, max_tokens=limit, **common)


def train(stage: str, name: str, ranks: int, model: str, folder: str, optimizer: str = "adam") -> None:
    """Two batches of eight questions; the first rank saves every step's figures and weights, and the logged figures."""
    scoring.CHUNK_LOGITS = 12_000  # several passes of the LM head a micro-batch, another number on each rank
    warnings.simplefilter("ignore")
    module = make(stage, model, optimizer)
    recorder = Recorder(module)
    data = questions(stage, model, folder)
    sampled: list[Any] = []
    if isinstance(module, (PPOModule, OnlineSelfTrainingModule)):
        collect = module.collect

        def watched(problems: Any) -> Any:
            rollout = collect(problems)
            sampled.append([(s.problem.id, list(s.completion.token_ids), reward) for s, reward in rollout.sampled])
            return rollout

        module.collect = watched  # type: ignore[method-assign]
    logged: list[dict[str, float]] = []
    module.log_statistics = lambda statistics: logged.append(dict(statistics))  # type: ignore[method-assign]
    trainer = Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", devices=ranks, strategy=strategy_named(name), logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    counts = module.ranks.gather(recorder.micro_batches)
    samples = [sorted(chain(*of_ranks)) for of_ranks in zip(*module.ranks.gather(sampled), strict=True)]
    if trainer.is_global_zero:
        found = {"steps": recorder.steps, "logged": logged, "micro_batches": counts, "samples": samples}
        torch.save(found, f"{folder}/{stage}-{name}-{optimizer}.pt")


def equality(model: str, folder: str, *cases: str) -> None:
    """``stage:optimizer:strategy`` each, ``one`` with one rank and everything else with two."""
    if any(case.startswith("reranker") for case in cases):
        load_policy(PolicySettings(model, from_scratch=True, dtype="float32")).lm.save_pretrained(f"{folder}/base")
        AutoTokenizer.from_pretrained(model).save_pretrained(f"{folder}/base")
        model = f"{folder}/base"
    for case in cases:
        stage, optimizer, name = case.split(":")
        ranks = 1 if name == "one" else 2
        on_ranks(ranks, partial(train, stage, name, ranks, model, folder, optimizer))
        print("done", case, flush=True)


def not_finite(model: str, folder: str, *names: str) -> None:
    """Run three SFT steps; in the second one only rank 1 has a non-finite loss."""
    for name in names:
        on_ranks(2, partial(train_poisoned, name, model, folder))


def train_poisoned(name: str, model: str, folder: str) -> None:
    module = make("sft", model, "adam")
    recorder, inner = Recorder(module), module.cross_entropy

    def poisoned(tokens: Any, weight: float = 1.0) -> Any:
        first, *rest = inner(tokens, weight)
        bad = len(recorder.steps) == 1 and module.ranks.rank == 1
        return [lambda: first() + torch.nan if bad else first(), *rest]

    module.cross_entropy = poisoned
    data = ReasoningDataModule(
        train=[StorySource("train", 24)], format=PythonProgram(), tokenizer=model, batch_size=8, max_prompt_tokens=190,
        max_tokens=400, cache_dir=f"{folder}/cache",
    )  # fmt: skip
    trainer = Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", devices=2, strategy=strategy_named(name), logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    found = {"steps": recorder.steps, "global_step": trainer.global_step, "rate": module._rate}
    torch.save(found, f"{folder}/{name}-{module.ranks.rank}.pt")


def killed_while_saving(*command: str) -> None:
    """A fit on two ranks that is killed, as by ``kill -9``, when the second rank has written half of the second checkpoint."""
    import os
    import signal

    from deepspeed.runtime.engine import DeepSpeedEngine

    saves, inner = [], DeepSpeedEngine._save_zero_checkpoint

    def dying(engine: Any, *args: Any) -> None:
        saves.append(args)
        if len(saves) == 2 and engine.global_rank == 1:
            Path("killed-in-the-middle").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        inner(engine, *args)

    DeepSpeedEngine._save_zero_checkpoint = dying
    on_ranks(2, partial(main, list(command)))


def commands(ranks: str, *words: str) -> None:
    """Run ``reft-pl`` commands in sequence, separated by ``--``, each on the given number of ranks."""
    for command in split(words):
        print("$", *command, flush=True)
        on_ranks(int(ranks), partial(main, command))


def split(words: Sequence[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in [*words, "--"]:
        if word == "--":
            yield command
            command = []
        else:
            command.append(word)
