"""The inputs of every benchmark: SVAMP questions, and what a warmed-up model answers to them."""

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
from reft_pl.models.dtype import fast_format
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy, ValueKind
from reft_pl.models.settings import PolicySettings
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.types import Problem, SampleRequest, SamplingParams, TokenBatch

MAX_TOKENS = 700
RESPONSES = "REFT_BENCHMARK_RESPONSES"
"""In the environment of a race's sides: the file with the token ids of the responses that they work on."""


@dataclass(frozen=True)
class Workload:
    """A model folder and some questions for it."""

    settings: PolicySettings
    codec: Codec
    problems: list[Problem]

    @classmethod
    def of(cls, settings: PolicySettings, data: str, n: int) -> Workload:
        """The first ``n`` questions of a file."""
        tokenizer = load_tokenizer(settings.init_from)
        codec = Codec(tokenizer, PythonProgram(), max_prompt_tokens=MAX_TOKENS - 1, max_tokens=MAX_TOKENS)
        return cls(settings, codec, list(AuthorsJson(data, limit=n).load()))

    def policy(self, value: ValueKind = "none") -> Policy:
        """The model."""
        return load_policy(self.settings, value)

    def requests(self) -> list[SampleRequest]:
        """A request a question, at temperature 1."""
        prompts = [self.codec.prompt_ids(p) for p in self.problems]
        return [
            SampleRequest(str(i), prompt, SamplingParams(MAX_TOKENS - len(prompt)), (i,), eos_ids=(self.codec.eos_id,))
            for i, prompt in enumerate(prompts)
        ]

    def responses(self, policy: Policy) -> list[tuple[int, ...]]:
        """What the model answers, in the order of the questions: sampled once, and read by the sides of a race after that."""
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
        """Questions and answers as one padded batch."""
        prompts = [self.codec.prompt_ids(p) for p in self.problems]
        sequences = [(*p, *r) for p, r in zip(prompts, self.responses(policy), strict=True)]
        return collate(sequences, [len(p) for p in prompts], self.codec.pad_id)


def policy_settings(args: argparse.Namespace) -> PolicySettings:
    """The same number format and attention on all sides; compiling is ours alone, since a straight loop does not."""
    return PolicySettings(args.model, dtype=args.dtype, attention=args.attention, compile=args.compile and args.side == "ours")


def parser_of(name: str, what: str | None) -> argparse.ArgumentParser:
    """What every benchmark of a model asks for."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=what)
    parser.add_argument("--model", default="runs/smollm2-sft/hf", help="a warmed-up model (make svamp leaves this one)")
    parser.add_argument("--data", default="data/svamp_python_sdp.json")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", default="", help="race those alone in whose name this stands: default allocator, vLLM")
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=fast_format(), help="of all sides")
    parser.add_argument("--attention", default="eager", help="of transformers, on all sides (eager is fastest on CPUs)")
    parser.add_argument("--compile", default=True, action=argparse.BooleanOptionalAction, help="our side's layers")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser


def lengths(tokens: TokenBatch) -> list[int]:
    """Real tokens of each row."""
    return [int(n) for n in tokens.attention_mask.sum(1)]
