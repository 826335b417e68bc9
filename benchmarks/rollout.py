"""Tokens a second of our sampler and of transformers' ``generate`` on the same prompts, in turn.

Both sample at temperature 1 without truncation, and no completion may end before the last token: equal work. What early ends
are worth is not measured here (``generate`` decodes ended rows on, the sampler refills them).
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


def svamp(n: int, model: str, data: str) -> Case:
    """SVAMP prompts for a model folder, in bf16."""
    tokenizer = _Tokenizer.from_pretrained(model)
    form = PythonProgram()
    problems = AuthorsJson(data, limit=n).load()
    prompts = [tuple(tokenizer(form.input_text(p) + form.given_text(p)).input_ids) for p in problems]
    return Case(f"{Path(model).name}, bf16, SVAMP", _CausalLM.from_pretrained(model, dtype=torch.bfloat16), prompts)


def with_sampler(case: Case, new_tokens: int, max_rows: int) -> None:
    sampler = InProcessSampler(max_rows)
    sampler.sync(Policy(case.lm))
    params = SamplingParams(new_tokens)
    completions = list(sampler.stream([SampleRequest(str(i), p, params, (i,), eos_ids=()) for i, p in enumerate(case.prompts)]))
    assert all(len(completion.token_ids) == new_tokens for completion in completions)


def with_generate(case: Case, new_tokens: int, max_rows: int) -> None:
    for start in range(0, len(case.prompts), max_rows):
        prompts = case.prompts[start : start + max_rows]
        width = max(map(len, prompts))
        ids = torch.tensor([(0,) * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        case.lm.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )


def timed(run: Callable[[Case, int, int], None], *args: Any) -> float:
    started = time.perf_counter()
    run(*args)
    return time.perf_counter() - started


def main(argv: list[str]) -> int:
    """Print one line a model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks rollout", description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--max-rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", default="models/smollm2-135m", help="model folder; left out when it is missing")
    parser.add_argument("--data", default="../shared/data/svamp_python_sdp.json")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cases = [tiny(args.prompts)]
    if Path(args.model).is_dir():
        cases.append(svamp(args.prompts, args.model, args.data))
    for case in cases:
        case.lm.eval()
        seconds: dict[str, list[float]] = {"sampler": [], "generate": []}
        for _ in range(args.rounds):
            seconds["sampler"].append(timed(with_sampler, case, args.new_tokens, args.max_rows))
            seconds["generate"].append(timed(with_generate, case, args.new_tokens, args.max_rows))
        tokens = len(case.prompts) * args.new_tokens
        ours, theirs = (statistics.median(seconds[name]) for name in ("sampler", "generate"))
        print(
            f"{case.name}: {len(case.prompts)} prompts x {args.new_tokens} tokens, {args.threads} threads, median of "
            f"{args.rounds} rounds: sampler {ours:.1f} s ({tokens / ours:.0f} tokens/s), generate {theirs:.1f} s "
            f"({tokens / theirs:.0f} tokens/s), ratio {theirs / ours:.2f}",
            flush=True,
        )
    return 0
