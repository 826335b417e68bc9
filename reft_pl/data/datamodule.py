"""The LightningDataModule of every stage: sources, splits, the codec and the data loaders."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from reft_pl.data.cache import TokenCache
from reft_pl.data.codec import Codec, Example
from reft_pl.data.hf_dataset import HFDatasetSource
from reft_pl.data.loader import ProblemLoader
from reft_pl.data.reranker_data import Candidate, candidates, mixed_groups, read_sets
from reft_pl.data.sample_file import SampledQuestion
from reft_pl.data.self_training import SelfTraining
from reft_pl.data.sources import AuthorsJson, Gsm8kOfficial, ProblemSource
from reft_pl.data.splits import hold_out, without
from reft_pl.data.stop_ids import load_stop_ids
from reft_pl.data.stories.source import StorySource
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.formats import Chat, CoTFormat, NaturalLanguage, PythonProgram
from reft_pl.resources import cache_dir as default_cache_dir
from reft_pl.types import Problem

# Importing the sources and formats makes their short names available to configs.
__all__ = [
    "AuthorsJson",
    "Chat",
    "Gsm8kOfficial",
    "HFDatasetSource",
    "NaturalLanguage",
    "PythonProgram",
    "ReasoningDataModule",
    "SelfTraining",
    "StorySource",
]

logger = logging.getLogger(__name__)


class ReasoningDataModule(LightningDataModule):
    """Training, validation and test problems, and the codec that tokenises them.

    A batch is a list of problems. Questions in several sets are deduplicated: training drops validation and test questions, and
    validation, which selects checkpoints, drops test questions. The log reports how many were dropped.

    Args:
        train: Sources of training problems, concatenated.
        test: Sources of test problems, by the name under which their results appear.
        samples: Files of sampled solutions (written by ``reft-pl predict``) under ``train``, ``validation`` and the names of
            test sets; ``train`` may be a list of files, such as samples of several policies. They replace the problems when
            training a reranker: candidates to train on, samples to evaluate.
        predict: Sets to sample from: names of test sets, ``validation``, ``train``; null means all test sets.
        validation: Sources of validation problems; null uses holdout.
        holdout: Number of training questions to hold out for validation if there is no validation source.
        format: CoT format: how problems become prompts and how answers are read.
        tokenizer: Model folder or hub id of the tokenizer.
        batch_size: Training problems per step over all ranks: per optimizer step in SFT, per rollout in PPO.
        eval_batch_size: Problems per evaluation batch over all ranks.
        max_prompt_tokens: Longest sampling prompt, in tokens. Prompts are never truncated.
        max_tokens: Longest sequence of prompt and response, in tokens.
        trust_remote_code: Run Python code that comes with the tokenizer; the command line takes this from the policy.
        add_bos: Start inputs with BOS if the tokenizer does so by default.
        on_too_long: ``error`` stops at a question over the limit; ``drop`` drops such questions and logs how many.
        holdout_seed: Determines the held-out questions independently of the run's seed, so that all stages hold out the same.
        seed: Determines the order of training problems.
        cache_dir: Folder for tokenised data; null uses reft-pl under XDG_CACHE_HOME or ~/.cache.
    """

    train_problems: list[Problem]
    validation_problems: list[Problem]
    test_problems: dict[str, list[Problem]]

    def __init__(
        self,
        *,
        format: CoTFormat,  # noqa: A002 (the name that configs use)
        tokenizer: str,
        trust_remote_code: bool = False,
        train: list[ProblemSource] | None = None,
        samples: dict[str, str | list[str]] | None = None,
        test: dict[str, ProblemSource] | None = None,
        predict: list[str] | None = None,
        validation: list[ProblemSource] | None = None,
        holdout: int = 0,
        holdout_seed: int = 1,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        max_prompt_tokens: int = 300,
        max_tokens: int = 700,
        add_bos: bool = True,
        on_too_long: Literal["error", "drop"] = "error",
        seed: int = 1,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        if validation and holdout:
            raise UserError("data.validation and data.holdout exclude each other: remove one of them")
        if samples and (train or test or validation or holdout):
            raise UserError("data.samples replaces data.train, validation, test and holdout: set those to null")
        if min(batch_size, eval_batch_size) < 1 or holdout < 0:
            raise UserError("data.batch_size and data.eval_batch_size must be positive, and data.holdout must not be negative")
        self.train = train or []
        self.samples = samples or {}
        self.test = test or {}
        self.predict_names = list(self.test) if predict is None else predict
        known = [*self.test, "validation", "train"]
        if unknown := [name for name in self.predict_names if name not in known]:
            raise UserError(f"data.predict names {unknown[0]!r}, which is not a set of this config: choose from {known}")
        self.validation = validation
        self.holdout = holdout
        self.holdout_seed = holdout_seed
        self.format = format
        self.tokenizer = tokenizer
        self.trust_remote_code = trust_remote_code
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_prompt_tokens = max_prompt_tokens
        self.max_tokens = max_tokens
        self.add_bos = add_bos
        self.on_too_long = on_too_long
        self.seed = seed
        self.cache = TokenCache(Path(cache_dir) if cache_dir else default_cache_dir())
        self.train_problems, self.validation_problems, self.test_problems = [], [], {}
        self.sampled: dict[str, list[SampledQuestion]] = {}
        self.candidates: list[Candidate] = []
        self.group_candidates = False  # set by a reranker that learns from a question at a time
        self._loaded: set[str] = set()

    @cached_property
    def codec(self) -> Codec:
        """The codec for the configured tokenizer and format."""
        tokenizer = load_tokenizer(self.tokenizer, self.trust_remote_code)
        stop_ids = load_stop_ids(self.tokenizer, self.trust_remote_code)
        return Codec(tokenizer, self.format, self.max_prompt_tokens, self.max_tokens, self.add_bos, stop_ids)

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs; ``fit`` reads everything, to exclude test questions from training."""
        if self.samples:
            self._load_samples()
            return
        wanted = set(self.predict_names) if stage == "predict" else {stage or "fit"}
        held_out = not self.validation and not wanted.isdisjoint({"validate", "validation"})
        training = stage in (None, "fit") or "train" in wanted or held_out
        self._load_test(self.test if stage in (None, "test") else self.predict_names if stage == "predict" else ())
        if training or not wanted.isdisjoint({"validate", "validation"}):
            self._load_validation()
        if training:
            self._load_train()

    def prepare_examples(self, *, every: bool = True) -> None:
        """Tokenise all training solutions, and fail before training if one is missing or too long.

        With ``on_too_long="drop"``, problems with sequences that are too long are dropped and counted instead.

        Args:
            every: Whether each problem must have a solution.

        Raises:
            UserError: a problem has no annotated solution in the format, or its sequence exceeds ``max_tokens``.
        """
        annotated = [p for p in self.train_problems if every or p.solution is not None]
        examples = self.codec.examples(annotated, self.cache)
        if self.on_too_long == "drop":
            long = {p for p, e in zip(annotated, examples, strict=True) if len(e.ids) > self.max_tokens}
            fitting = [p for p in self.train_problems if p not in long]
            self.train_problems = self._log_dropped("train", "with solutions that are too long", self.train_problems, fitting)
        else:
            for problem in annotated:
                self.codec.example(problem)

    def examples(self, problems: Sequence[Problem]) -> list[Example]:
        """Return the training sequences of the problems.

        Raises:
            UserError: a problem has no annotated solution in the format, or its sequence exceeds ``max_tokens``.
        """
        return [self.codec.example(problem) for problem in problems]

    @property
    def test_names(self) -> list[str]:
        """Names of the test sets, in the order of their loaders."""
        return [name for name in self.samples or self.test if name not in ("train", "validation")]

    def train_dataloader(self) -> ProblemLoader[Any]:
        """Return this rank's shard of the shuffled training batches."""
        items: Sequence[Any] = self.train_problems
        if self.samples:
            items = mixed_groups(self.candidates) if self.group_candidates else self.candidates
        return self._loader(items, self.batch_size, shuffle=True)

    def val_dataloader(self) -> ProblemLoader[Any] | list[ProblemLoader[Any]]:
        """Return the validation problems in order; no loader if there are none."""
        items = self.sampled.get("validation", []) if self.samples else self.validation_problems
        return self._loader(items, self.eval_batch_size) if items else []

    def test_dataloader(self) -> list[ProblemLoader[Any]]:
        """Return one loader per test set, in the order of ``test_names``."""
        sets: Mapping[str, Sequence[Any]] = self.sampled if self.samples else self.test_problems
        return [self._loader(sets[name], self.eval_batch_size) for name in self.test_names]

    def predict_dataloader(self) -> list[ProblemLoader[Problem]]:
        """Return one loader per set in ``predict_names``, unsharded: ranks claim batches while they run."""
        sets = {**self.test_problems, "validation": self.validation_problems, "train": self.train_problems}
        return [ProblemLoader(sets[name], self.eval_batch_size, shuffle=False) for name in self.predict_names]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return the batch unchanged: it contains problems, not tensors."""
        return batch

    def _loader(self, problems: Sequence[Any], batch_size: int, *, shuffle: bool = False) -> ProblemLoader[Any]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return ProblemLoader(problems, batch_size, seed=self.seed, shuffle=shuffle, rank=rank, world_size=world_size)

    def _load_samples(self) -> None:
        """Read the sampled questions of every set; drop evaluated ones from training, and test questions from validation."""
        if self.sampled:
            return
        self.sampled = read_sets(self.samples)
        if validation := self.sampled.get("validation"):
            tests = [item for name in self.test_names for item in self.sampled[name]]
            self.sampled["validation"] = apart = without(validation, tests)
            left_out = len(validation) - len(apart)
            if not apart:
                raise UserError(
                    f"{self.samples['validation']} contains only test questions: set data.samples.validation to another file"
                )
            if left_out:
                logger.warning("validation: left out %d of %d questions that are test questions", left_out, len(validation))
        evaluated = [item for name, items in self.sampled.items() if name != "train" for item in items]
        train = self.sampled.get("train", [])
        apart = without(train, evaluated)
        if len(apart) < len(train):
            logger.warning("train: left out %d of %d questions that are evaluated on", len(train) - len(apart), len(train))
        self.candidates = candidates(apart)

    def _load_test(self, answered: Collection[str]) -> None:
        """Load all test sets at every stage, because training and validation must not contain test questions.

        Prompt lengths are checked only in the sets that this stage answers (``answered``).
        """
        if "test" not in self._loaded:
            self._loaded.add("test")
            self.test_problems = {name: source.load() for name, source in self.test.items()}
        for name, problems in self.test_problems.items():
            if name in answered and f"test {name}" not in self._loaded:
                self._loaded.add(f"test {name}")
                self.test_problems[name] = self._fitting(name, problems)

    def _load_validation(self) -> None:
        if self.validation and "validation" not in self._loaded:
            self._loaded.add("validation")
            problems = _load(self.validation, self.codec)
            apart = self._log_dropped("validation", "that are test questions", problems, without(problems, self._tests()))
            if not apart:
                raise UserError("data.validation contains only test questions: set another source, or use data.holdout")
            self.validation_problems = self._fitting("validation", apart)

    def _tests(self) -> list[Problem]:
        return [problem for problems in self.test_problems.values() for problem in problems]

    def _load_train(self) -> None:
        if "train" in self._loaded:
            return
        self._loaded.add("train")
        problems = _load(self.train, self.codec)
        problems = self._log_dropped("train", "that are test questions", problems, without(problems, self._tests()))
        if self.holdout:
            before = len(problems)
            problems, self.validation_problems = hold_out(self._fitting("train", problems), self.holdout, self.holdout_seed)
            rank_zero_only(logger.info)(
                "held out %d of %d training problems for validation", len(self.validation_problems), before
            )
        else:
            apart = without(problems, self.validation_problems)
            problems = self._fitting("train", self._log_dropped("train", "that are validation questions", problems, apart))
        if not problems:
            raise UserError("no training problems are left; the log above counts what was left out")
        self.train_problems = problems

    def _fitting(self, name: str, problems: list[Problem]) -> list[Problem]:
        """Check the length of every prompt before the run starts."""
        bounds = self.codec.longest_prompts(problems, self.cache)
        near = dict.fromkeys(p for p, bound in zip(problems, bounds, strict=True) if bound > self.max_prompt_tokens)
        if self.on_too_long == "error":
            for problem in near:
                self.codec.prompt_ids(problem)
        short = [p for p in problems if p not in near or len(self.codec.prompts([p])[0].ids) <= self.max_prompt_tokens]
        return self._log_dropped(name, f"longer than {self.max_prompt_tokens} tokens", problems, short)

    @staticmethod
    def _log_dropped(name: str, why: str, before: list[Problem], after: list[Problem]) -> list[Problem]:
        if len(after) < len(before):
            rank_zero_only(logger.warning)(
                "%s: left out %d of %d questions %s", name, len(before) - len(after), len(before), why
            )
        return after


def _load(sources: Sequence[ProblemSource], codec: Codec) -> list[Problem]:
    """Read the problems of several sources, and check that ids are unique: seeds and reports depend on them."""
    problems: dict[str, Problem] = {}
    for source in sources:
        for problem in source.load_for(codec):
            if problem.id in problems:
                raise UserError(
                    f"{source.name} has the id {problem.id!r}, which an earlier source has too; change the prefix of one"
                )
            problems[problem.id] = problem
    return list(problems.values())
