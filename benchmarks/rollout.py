"""Tokens a second of our sampler and of transformers' ``generate`` on the same prompts, in turn.

Both sample at temperature 1 without truncation. In the first two cases no completion may end before the last token: equal work.
In the third, a warmed-up model ends its responses where it likes: ``generate`` decodes ended rows on until the last one ends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from reft_pl.data.sources import AuthorsJson
from reft_pl.formats.python_program import PythonProgram
from reft_pl.models.policy import Policy
from reft_pl.rollout.inprocess import InProcessSampler
from reft_pl.types import SampleRequest, SamplingParams

_CausalLM: Any = AutoModelForCausalLM  # its class methods carry no types
_Tokenizer: Any = AutoTokenizer


class Case(NamedTuple):
    """A model and what it is asked."""

    name: str
    lm: Any
    prompts: list[tuple[int, ...]]
    eos_ids: tuple[int, ...] = ()


def tiny(n: int) -> Case:
    """A random Llama of 2 million parameters with prompts of 20 to 120 tokens."""
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
    )
    torch.manual_seed(0)
    lengths = torch.randint(20, 121, (n,)).tolist()
    return Case("tiny Llama, fp32", _CausalLM.from_config(config), [tuple(torch.randint(2048, (k,)).tolist()) for k in lengths])


def svamp(n: int, model: str, data: str, real_ends: bool = False) -> Case:
    """SVAMP prompts for a model folder, in bf16, with ends or without."""
    tokenizer = _Tokenizer.from_pretrained(model)
    form = PythonProgram()
    problems = AuthorsJson(data, limit=n).load()
    prompts = [tuple(tokenizer(form.input_text(p) + form.given_text(p)).input_ids) for p in problems]
    eos_ids = (tokenizer.eos_token_id,) if real_ends else ()
    return Case(f"{model}, bf16, SVAMP", _CausalLM.from_pretrained(model, dtype=torch.bfloat16), prompts, eos_ids)


def with_sampler(case: Case, new_tokens: int, max_rows: int) -> int:
    sampler = InProcessSampler(max_rows)
    sampler.sync(Policy(case.lm))
    params = SamplingParams(new_tokens)
    requests = [SampleRequest(str(i), p, params, (i,), eos_ids=case.eos_ids) for i, p in enumerate(case.prompts)]
    return sum(len(completion.token_ids) for completion in sampler.stream(requests))


def with_generate(case: Case, new_tokens: int, max_rows: int) -> int:
    written = 0
    for start in range(0, len(case.prompts), max_rows):
        prompts = case.prompts[start : start + max_rows]
        width = max(map(len, prompts))
        ids = torch.tensor([(0,) * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        output = case.lm.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            min_new_tokens=None if case.eos_ids else new_tokens,
            max_new_tokens=new_tokens,
            eos_token_id=list(case.eos_ids) or None,
            pad_token_id=0,
        )
        for row in output[:, width:].tolist():
            written += next((i + 1 for i, token in enumerate(row) if token in case.eos_ids), len(row))
    return written


def seconds_a_token(run: Callable[[Case, int, int], int], *args: Any) -> float:
    started = time.perf_counter()
    tokens = run(*args)
    return (time.perf_counter() - started) / tokens


def main(argv: list[str]) -> int:
    """Print one line a model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks rollout", description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--max-rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", default="models/smollm2-135m", help="model folder; left out when it is missing")
    parser.add_argument("--warmed-up", default="runs/smollm2-sft/hf", help="a trained model; left out when it is missing")
    parser.add_argument("--data", default="data/svamp_python_sdp.json")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cases = [tiny(args.prompts)]
    if Path(args.model).is_dir():
        cases.append(svamp(args.prompts, args.model, args.data))
    if Path(args.warmed_up).is_dir():
        cases.append(svamp(args.prompts, args.warmed_up, args.data, real_ends=True))
    for case in cases:
        case.lm.eval()
        new_tokens = 600 if case.eos_ids else args.new_tokens
        seconds: dict[str, list[float]] = {"sampler": [], "generate": []}
        for _ in range(args.rounds):
            seconds["sampler"].append(seconds_a_token(with_sampler, case, new_tokens, args.max_rows))
            seconds["generate"].append(seconds_a_token(with_generate, case, new_tokens, args.max_rows))
        ours, theirs = (statistics.median(seconds[name]) for name in ("sampler", "generate"))
        length = "their own length" if case.eos_ids else f"{new_tokens} tokens"
        print(
            f"{case.name}: {len(case.prompts)} responses of {length}, {args.threads} threads, median of {args.rounds} rounds: "
            f"sampler {1 / ours:.0f} tokens/s, generate {1 / theirs:.0f} tokens/s, ratio {theirs / ours:.2f}",
            flush=True,
        )
    return 0
