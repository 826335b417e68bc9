"""Measure how a PPO iteration's time and memory grow with batch, response length and model width.

Models have SmolLM2's depth and shapes and random weights, so that no response ends before the limit. Each point is the median
of several iterations in a separate process. Each curve has the slope that the arithmetic predicts: FLOPs of sampling, scoring
and two passes of updates, at the rate of the curve's last point.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import NullLocator, StrMethodFormatter
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks._turns import OURS, median, race, table
from benchmarks._workload import parser_of

_Tokenizer: Any = AutoTokenizer  # its class methods carry no types


class Point(NamedTuple):
    """Settings of an iteration."""

    questions: int = 4
    max_tokens: int = 192
    width: int = 576


CURVES = {
    "questions": [Point(questions=n) for n in (1, 2, 4, 8)],
    "max_tokens": [Point(max_tokens=n) for n in (192, 288, 384)],
    "width": [Point(width=n) for n in (192, 384, 576)],
}
LABELS = {
    "questions": "questions of a batch",
    "max_tokens": "tokens of a question and its response",
    "width": "width of the model",
}


def main(argv: list[str]) -> int:
    """Print a table of all points, draw the curves, and print JSON on the last line."""
    parser = parser_of("scaling", __doc__)
    parser.add_argument("--plot", default="docs/images/scaling.svg", metavar="FILE")
    parser.set_defaults(rounds=2)
    args = parser.parse_args(argv)
    found: dict[Point, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for point in [p for curve in CURVES.values() for p in curve]:
            if point not in found:
                found[point] = measured(point, args, random_model(args.model, point.width, Path(folder)))
    rows = [
        (
            *map(str, p),
            f"{f['tokens']:.0f}",
            f"{f['seconds']:.1f} s",
            f"{f['flops'] / f['seconds'] / 1e9:.0f}",
            f"{f['gib']:.2f} GiB",
        )
        for p, f in found.items()
    ]
    head = ("questions", "max tokens", "width", "tokens", "iteration", "GFLOP/s", "peak memory")
    print(table(rows, head))
    draw(found, args.plot)
    print(json.dumps([point._asdict() | figures for point, figures in found.items()]))
    return 0


def random_model(like: str, width: int, folder: Path) -> str:
    """Save a random Llama of SmolLM2's depth with ``like``'s tokenizer; heads of 64, three per key head."""
    target = folder / str(width)
    if not target.exists():
        tokenizer = _Tokenizer.from_pretrained(like)
        heads = width // 64
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=30,
            num_attention_heads=heads, num_key_value_heads=heads // 3, tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
        )  # fmt: skip
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(target)
        tokenizer.save_pretrained(target)
    return str(target)


def measured(point: Point, args: argparse.Namespace, model: str) -> dict[str, float]:
    """Return seconds, tokens, needed FLOPs and peak memory of an iteration."""
    options = {
        "model": model, "data": args.data, "threads": args.threads, "micro-batch-tokens": args.micro_batch_tokens,
        "questions": point.questions, "max-tokens": point.max_tokens, "attention": args.attention, "dtype": args.dtype,
    }  # fmt: skip
    argv = ["--compile" if args.compile else "--no-compile"]
    argv += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    reports = race(["ppo_iteration", *argv], args.rounds, [OURS])[OURS.label]
    figures = {name: median(reports, name) for name in ("seconds", "tokens", "flops")}
    return figures | {"gib": reports[-1]["peak_bytes"] / 2**30}


def draw(found: dict[Point, dict[str, float]], file: str) -> None:
    """Plot time over each setting with the expected slope, and memory over batch size."""
    figure, axes = plt.subplots(1, len(CURVES) + 1, figsize=(4 * (len(CURVES) + 1), 3.6), layout="constrained")
    for axis, (name, curve) in zip(axes, CURVES.items(), strict=False):
        last = found[curve[-1]]
        expected = [found[p]["flops"] * last["seconds"] / last["flops"] for p in curve]
        x = [getattr(p, name) for p in curve]
        axis.loglog(x, [found[p]["seconds"] for p in curve], "o-", label="measured")
        axis.loglog(x, expected, "--", color="gray", label="as the FLOPs grow")
        axis.set(xlabel=LABELS[name], ylabel="seconds an iteration")
        axis.set_xticks(x, map(str, x))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axis.legend()
    batch = CURVES["questions"]
    axes[-1].plot([p.questions for p in batch], [found[p]["gib"] for p in batch], "o-")
    axes[-1].set(xlabel=LABELS["questions"], ylabel="peak memory, GiB", ylim=(0, None))
    figure.savefig(file, metadata={"Date": None})
