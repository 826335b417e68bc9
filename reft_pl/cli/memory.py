"""`reft-pl memory`: estimate the memory of a run on each GPU, without a GPU or the weights."""

from __future__ import annotations

import io
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import yaml

from reft_pl.errors import UserError
from reft_pl.terminal import echo

GIB = 2**30
DOES_NOT_FIT = 1


def main(args: list[str]) -> int:
    """Estimate one run; return 0 if it fits, 1 if it does not."""
    parser = ArgumentParser(
        "reft-pl memory",
        allow_abbrev=False,
        description="Estimate the memory on each GPU of `reft-pl fit` with the same --config and --key arguments. "
        "No weights are loaded. Exits with code 1 if the run does not fit.",
    )
    parser.add_argument("--gpus", type=int, help="number of GPUs over all nodes (default: trainer.devices x trainer.num_nodes)")
    parser.add_argument("--gpu_memory", type=float, default=80, metavar="GIB", help="memory of each GPU (default: %(default)s)")
    parser.add_argument(
        "--model_config",
        metavar="PATH",
        help="config.json of the model (default: that of policy.init_from)",
    )
    options, rest = parser.parse_known_args(args)
    if (options.gpus is not None and options.gpus < 1) or options.gpu_memory <= 0:
        raise UserError("--gpus and --gpu_memory must be positive")
    if not rest:
        raise UserError("name the run with --config, as for `reft-pl fit`")
    config = parsed(rest)
    if config is None:
        return 2
    return _tell(config, options)


def parsed(args: list[str]) -> dict[str, Any] | None:
    """Return the full config that `fit` would use; None if `fit` rejected it and reported why."""
    from reft_pl.cli.run_verb import run_verb  # noqa: PLC0415 (importing Lightning takes seconds)

    printed = io.StringIO()
    with redirect_stdout(printed):
        code = run_verb("fit", [*args, "--print_config"])
    if code:
        return None
    config: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return config


def _tell(config: Mapping[str, Any], options: Namespace) -> int:
    from reft_pl.cli.memory_settings import ranks_of, settings_of, shape_of  # noqa: PLC0415 (torch takes seconds to import)
    from reft_pl.models.memory import estimate  # noqa: PLC0415

    gpus = options.gpus or ranks_of(config["trainer"])
    run = settings_of(config, gpus)
    made = estimate(shape_of(run.policy.init_from, options.model_config, run.policy.trust_remote_code), run)
    precision = f"{run.policy.dtype}, {'LoRA, ' if run.policy.lora else ''}{'ZeRO-' + str(run.zero) if run.zero else 'no ZeRO'}"
    echo(f"{made.parameters / 1e9:.2f} billion parameters, {made.trained / 1e9:.2f} billion trained; {precision}")
    echo()
    at_peak, used = made.phases[made.peak], {part for parts in made.phases.values() for part in parts}
    for part, size in made.parts.items():
        if size and part in used:
            echo(f"  {part:<24}{size / GIB:8.2f} GiB{'' if part in at_peak else '   not at the peak'}")
    echo()
    for phase in made.phases:
        echo(f"  {phase:<24}{made.total(phase) / GIB:8.2f} GiB{'   <- peak' if phase == made.peak else ''}")
    if made.host:
        kept = ", ".join(f"{part} {size / GIB:.1f} GiB" for part, size in made.host.items())
        echo()
        echo(f"in host memory, for each GPU: {kept}")
    total, micro = run.sequences * gpus, run.micro_batches
    beside = f", and {run.annotated * gpus} annotated solutions" if run.annotated else ""
    echo()
    echo(
        f"An optimizer step: {total} sequences = {gpus} GPU{'s' * (gpus > 1)} x {run.sequences}{beside}, "
        f"in at most {micro} micro-batch{'es' * (micro > 1)} of {run.micro_batch_tokens:,} tokens on each "
        f"({run.micro_rows} of {run.max_tokens:,} tokens)."
    )
    if run.policy.compile and not run.policy.gradient_checkpointing and run.zero < 3:
        echo("Compiled layers keep fewer activations: the figure above is an upper bound.")
    peak = made.total(made.peak) / GIB
    verdict = "fits" if peak <= options.gpu_memory else "does NOT fit"
    echo(f"{peak:.1f} of {options.gpu_memory:g} GiB on each GPU: {verdict}.")
    return 0 if peak <= options.gpu_memory else DOES_NOT_FIT
