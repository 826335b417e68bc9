"""The inputs of every benchmark: SVAMP questions, and what a warmed-up model answers to them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from reft_pl.data.batching import collate
from reft_pl.data.codec import Codec
from reft_pl.data.sources import AuthorsJson
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.formats import PythonProgram
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy, ValueKind
from reft_pl.models.settings import PolicySettings
from reft_pl.rollout.inprocess import InProcessSampler
from reft_pl.types import Completion, Problem, SampleRequest, SamplingParams, TokenBatch

MAX_TOKENS = 700


@dataclass(frozen=True)
class Workload:
    """A model folder and some questions for it."""

    model: str
    codec: Codec
    problems: list[Problem]

    @classmethod
    def of(cls, args: argparse.Namespace, n: int) -> Workload:
        """Of a benchmark's arguments."""
        codec = Codec(load_tokenizer(args.model), PythonProgram(), max_prompt_tokens=MAX_TOKENS - 1, max_tokens=MAX_TOKENS)
        return cls(args.model, codec, list(AuthorsJson(args.data, limit=n).load()))

    def policy(self, value: ValueKind = "none") -> Policy:
        """The model in bfloat16."""
        return load_policy(PolicySettings(self.model, dtype="bfloat16"), value)

    def requests(self) -> list[SampleRequest]:
        """A request a question, at temperature 1."""
        prompts = [self.codec.prompt_ids(p) for p in self.problems]
        return [
            SampleRequest(str(i), prompt, SamplingParams(MAX_TOKENS - len(prompt)), (i,), eos_ids=(self.codec.eos_id,))
            for i, prompt in enumerate(prompts)
        ]

    def completions(self, policy: Policy) -> list[Completion]:
        """What the model answers, in the order of the questions; the same in every process."""
        sampler = InProcessSampler(max_rows=64)
        sampler.sync(policy)
        return sorted(sampler.stream(self.requests()), key=lambda completion: int(completion.request_id))

    def tokens(self, policy: Policy) -> TokenBatch:
        """Questions and answers as one padded batch."""
        requests, completions = self.requests(), self.completions(policy)
        sequences = [(*r.prompt_ids, *c.token_ids) for r, c in zip(requests, completions, strict=True)]
        return collate(sequences, [len(r.prompt_ids) for r in requests], self.codec.pad_id)


def parser_of(name: str, what: str | None) -> argparse.ArgumentParser:
    """What every benchmark of a model asks for."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=what)
    parser.add_argument("--model", default="runs/smollm2-sft/hf", help="a warmed-up model (make svamp leaves this one)")
    parser.add_argument("--data", default="data/svamp_python_sdp.json")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser


def lengths(tokens: TokenBatch) -> list[int]:
    """Real tokens of each row."""
    return [int(n) for n in tokens.attention_mask.sum(1)]
