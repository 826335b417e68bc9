"""Inputs of the model benchmarks: SVAMP questions and a warmed-up model's responses."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from reft_pl.data.batching import collate
from reft_pl.data.codec import Codec
from reft_pl.data.sources import AuthorsJson
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.formats import PythonProgram
from reft_pl.models.dtype import fastest_dtype
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy, ValueKind
from reft_pl.models.settings import PolicySettings
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.types import Problem, SampleRequest, SamplingParams, TokenBatch

MAX_TOKENS = 700
RESPONSES = "REFT_BENCHMARK_RESPONSES"
"""Environment variable of a race's sides: the file with the token ids of the responses to work on."""


@dataclass(frozen=True)
class Workload:
    """A model folder and some questions for it."""

    settings: PolicySettings
    codec: Codec
    problems: list[Problem]

    @classmethod
    def of(cls, settings: PolicySettings, data: str, n: int) -> Workload:
        """Load the first ``n`` questions of a file."""
        tokenizer = load_tokenizer(settings.init_from)
        codec = Codec(tokenizer, PythonProgram(), max_prompt_tokens=MAX_TOKENS - 1, max_tokens=MAX_TOKENS)
        return cls(settings, codec, list(AuthorsJson(data, limit=n).load()))

    def policy(self, value: ValueKind = "none") -> Policy:
        """Load the model."""
        return load_policy(self.settings, value)

    def requests(self) -> list[SampleRequest]:
        """Return one request per question, at temperature 1."""
        prompts = [self.codec.prompt_ids(p) for p in self.problems]
        return [
            SampleRequest(str(i), prompt, SamplingParams(MAX_TOKENS - len(prompt)), (i,), eos_ids=(self.codec.eos_id,))
            for i, prompt in enumerate(prompts)
        ]

    def responses(self, policy: Policy) -> list[tuple[int, ...]]:
        """Return the model's responses in question order: sampled once, then read from a file by all sides of a race."""
        if known := os.environ.get(RESPONSES):
            return [tuple(ids) for ids in json.loads(Path(known).read_text())]
        sampler = InProcessSampler(max_rows=64)
        sampler.sync(policy)
        found = {completion.request_id: completion.token_ids for completion in sampler.stream(self.requests())}
        responses = [found[request.id] for request in self.requests()]
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            json.dump(responses, file)
        atexit.register(Path(file.name).unlink)
        os.environ[RESPONSES] = file.name
        return responses

    def tokens(self, policy: Policy) -> TokenBatch:
        """Return questions and responses as one padded batch."""
        prompts = [self.codec.prompt_ids(p) for p in self.problems]
        sequences = [(*p, *r) for p, r in zip(prompts, self.responses(policy), strict=True)]
        return collate(sequences, [len(p) for p in prompts], self.codec.pad_id)


def policy_settings(args: argparse.Namespace) -> PolicySettings:
    """Return settings with the same dtype and attention on all sides; only our side compiles, as a user's loop does not."""
    return PolicySettings(args.model, dtype=args.dtype, attention=args.attention, compile=args.compile and args.side == "ours")


def parser_of(name: str, what: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every model benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=what)
    parser.add_argument("--model", default="runs/smollm2-sft/hf", help="a warmed-up model (make svamp leaves this one)")
    parser.add_argument("--data", default="data/svamp_python_sdp.json")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", default="", help="race only contenders with this in their name: default allocator, vLLM")
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=fastest_dtype(), help="dtype of all sides")
    parser.add_argument("--attention", default="eager", help="transformers attention on all sides (eager is fastest on CPUs)")
    parser.add_argument("--compile", default=True, action=argparse.BooleanOptionalAction, help="compile our side's layers")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser


def lengths(tokens: TokenBatch) -> list[int]:
    """Return the number of real tokens of each row."""
    return [int(n) for n in tokens.attention_mask.sum(1)]
