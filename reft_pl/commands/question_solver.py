"""Load a model for `reft-pl solve` and let it answer questions."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.utils import logging

from reft_pl.data.codec import Codec
from reft_pl.data.stop_ids import load_stop_ids
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError, described
from reft_pl.formats import CoTFormat, format_from_settings
from reft_pl.formats.answers import is_answer_to, votes
from reft_pl.hub import locate, stored_file
from reft_pl.models.adapter_folder import CONFIG_FILE, locate_weights
from reft_pl.models.export import DESCRIPTION_FILE, read_description
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy
from reft_pl.models.pretrained import load_config
from reft_pl.models.settings import PolicySettings
from reft_pl.resources import model_folder
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.collector import Collector
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.phases import PhaseTimer
from reft_pl.rollout.seeds import counter_seed
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.terminal import echo
from reft_pl.types import Answer, Problem, Sample, SamplingParams


@dataclass(frozen=True, slots=True)
class Solution:
    """The solution to one question: at least one sample, in sampling order."""

    samples: tuple[Sample, ...]

    @property
    def answers(self) -> list[Answer | None]:
        """[n] executed answers, None where a sample has no valid one."""
        values = [sample.result.value for sample in self.samples]
        return [value if is_answer_to(value, None) else None for value in values]

    @property
    def votes(self) -> list[list[int]]:
        """Indices of the samples of each answer, the voted answer first; see ``formats.answers.votes``."""
        return votes(self.answers)

    @property
    def chosen(self) -> Sample:
        """The representative of the voted answer, or the first sample if none has an answer."""
        groups = self.votes
        return self.samples[groups[0][0] if groups else 0]


class QuestionSolver:
    """A policy that answers questions without known answers, one at a time.

    Samples depend on the seed, the question and the sample index, not on earlier questions.

    Args:
        policy: The policy, on its device.
        codec: The policy's prompt format and limits.
        sampler: Sampler of completions.
        sandbox: Sandbox that runs their programs.
        params: Sampling parameters.
        n: Samples per question.
        seed: Seed of all samples.
    """

    def __init__(
        self, policy: Policy, codec: Codec, sampler: Sampler, sandbox: Sandbox, params: SamplingParams, n: int, seed: int
    ) -> None:
        self.codec = codec
        self._policy = policy
        self._collector = Collector(codec, sampler, sandbox, PhaseTimer())
        self._params = params
        self._n = n
        self._seed = seed

    def solve(self, question: str) -> Solution:
        """Sample ``n`` solutions and execute them.

        Raises:
            UserError: The prompt exceeds the model's limit.
        """
        problem = Problem("question", question, None)
        length, limit = len(self.codec.prompts([problem])[0].ids), self.codec.max_prompt_tokens
        if length > limit:
            raise UserError(f"the question makes a prompt of {length} tokens, and this model takes {limit}: shorten it")
        return Solution(tuple(self._collector.sample(self._policy, [problem], self._params, self._seed_of, self._n)))

    def close(self) -> None:
        """Stop the sandbox's processes."""
        self._collector.sandbox.close()

    def _seed_of(self, problem: Problem, index: int) -> int:
        return counter_seed(self._seed, "solve", 0, problem.question, index)


DEFAULT_FORMAT = "PythonProgram"
DEFAULT_MAX_TOKENS = 700
"""For models without a description."""


def load_solver(options: Namespace) -> QuestionSolver:
    """Load the model of the command line, on the GPU if there is one.

    Raises:
        UserError: The model does not exist, or does not support the options.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = _source(options.model)
    description = _description(source)
    cot_format = _format(options.format, _trained_format(description, source), source)
    trust: bool = options.trust_remote_code
    dtype = options.dtype or _stored_dtype(source, trust)
    policy = load_policy(PolicySettings(init_from=source, dtype=dtype, trust_remote_code=trust))
    max_tokens = _max_tokens(options.max_tokens or description.get("max_tokens"), policy.positions, source)
    max_prompt_tokens = min(max_tokens - 1, description.get("max_prompt_tokens", max_tokens))
    add_bos = not options.no_bos and description.get("add_bos", True)
    temperature = options.temperature if options.temperature is not None else float(options.samples > 1)
    codec = Codec(
        load_tokenizer(source, trust), cot_format, max_prompt_tokens, max_tokens, add_bos, load_stop_ids(source, trust)
    )
    codec.check_embeddings(policy.embedding_rows, source)
    return QuestionSolver(
        policy.to("cuda" if torch.cuda.is_available() else "cpu"),
        codec,
        InProcessSampler(),
        CPythonSandbox(),
        SamplingParams(max_tokens, temperature, options.top_k),
        n=options.samples,
        seed=options.seed,
    )


def _source(name: str) -> str:
    """Return the model folder that ``name`` means, including ``hf/`` of a run folder, or a hub id."""
    folder = model_folder(name)
    if folder is None:
        return name
    return str(folder / "hf" if not _is_model(folder) and _is_model(folder / "hf") else folder)


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", CONFIG_FILE))


def _description(source: str) -> dict[str, Any]:
    """Return the model's ``reft.json``; empty for other models."""
    location, options = locate(source)
    file = stored_file(location, DESCRIPTION_FILE, options)
    return read_description(file.parent) if file else {}


def _trained_format(description: Mapping[str, Any], source: str) -> Mapping[str, Any] | None:
    trained = description.get("format")
    if trained is not None and not isinstance(trained, Mapping):
        raise UserError(f"{source}/{DESCRIPTION_FILE} has a format that is no mapping: export the model again")
    return trained


def _format(wanted: str | None, trained: Mapping[str, Any] | None, source: str) -> CoTFormat:
    """Return the prompt format; print a note if the model was trained with another one.

    The model's file can name only our formats. A user's class is imported only if ``--format`` names it; it takes the file's
    arguments if the file names the same class.
    """
    settings: Mapping[str, Any] = {"class_path": wanted} if wanted else trained or {"class_path": DEFAULT_FORMAT}
    if wanted and "." in wanted and not wanted.startswith("reft_pl."):
        same = trained is not None and trained.get("class_path") == wanted
        cot_format = format_from_settings(trained if trained is not None and same else settings, _users_format(wanted))
    else:
        cot_format = format_from_settings(settings)
    if trained and cot_format.settings() != trained:
        echo(f"note: {source} was trained with {trained} and will be prompted with {cot_format.settings()}", error=True)
    return cot_format


def _users_format(path: str) -> type[CoTFormat]:
    """Import the class that ``--format`` names, from an installed package or a file in the working folder."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except Exception as error:  # running the user's file may raise anything
        raise UserError(
            f"--format {path} cannot be imported ({described(error)}): put its file into the working folder, or correct it"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, CoTFormat)):
        raise UserError(f"--format {path} is not a prompt format: name a subclass of reft_pl.formats.base.CoTFormat")
    return kind


def _max_tokens(wanted: int | None, positions: int | None, source: str) -> int:
    longest = DEFAULT_MAX_TOKENS if positions is None else positions + 1  # the last token is never read
    if wanted is not None and positions is not None and wanted > longest:
        raise UserError(f"--max_tokens is {wanted}, and {source} has {positions} positions: lower it")
    return wanted or min(DEFAULT_MAX_TOKENS, longest)


def _stored_dtype(source: str, trust_remote_code: bool) -> Literal["float32", "auto"]:
    """Return the dtype to load: float32 if the weights are stored in it, else the fastest here."""
    base, options, _ = locate_weights(source, trust_remote_code)
    return "float32" if str(load_config(base, options).dtype).endswith("float32") else "auto"
