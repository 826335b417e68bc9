"""Write the config of `reft-pl init`: a data overlay with its findings as comments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reft_pl.cli.dataset_survey import Lengths, Survey
from reft_pl.data.columns import HASHES
from reft_pl.escapes import one_line

_LARGEST_HOLDOUT = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the config states.

    Args:
        dataset: The dataset as the user named it.
        output: The config's path.
        model: Model folder or hub id.
        from_scratch: Whether the model is the embedded default, which is trained from scratch.
        sources: Sources by set, as configs name them.
        survey: What the training table holds.
        lengths: Lengths and limits in tokens.
    """

    dataset: str
    output: Path
    model: str
    from_scratch: bool
    sources: Mapping[str, Mapping[str, Any]]
    survey: Survey
    lengths: Lengths

    @property
    def stage(self) -> str:
        """The stage that can train on this data: SFT needs solutions."""
        return "sft" if self.survey.solved else "ppo"

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``reft-pl fit``."""
        return ["--config", f"configs/{self.stage}.yaml", "--config", str(self.output)]

    @property
    def run(self) -> str:
        """Name of the run, from the dataset's."""
        name = Path(self.dataset.rstrip("/").removesuffix(".gz")).stem
        return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name).strip('-') or 'mine'}-{self.stage}"

    @property
    def holdout(self) -> int:
        """Number of training questions to hold out: a tenth, at most ``_LARGEST_HOLDOUT``, and at least one."""
        return 0 if "validation" in self.sources else max(1, min(_LARGEST_HOLDOUT, self.survey.distinct // 10))

    @property
    def findings(self) -> list[str]:
        """What was found, a sentence a line."""
        found, lengths = self.survey, self.lengths
        count = len(found.problems)
        name = type(found.format).__name__
        if not found.solved:
            lines = [f"format: {name}. Without solutions, SFT cannot train on this data; PPO can, from a model that answers"]
        else:
            lines = [f"format: {name}, in which {found.solved} of {count} solutions can be trained on"]
        if found.solved and found.unsolved:
            lines.append(f"SFT stops at the others, such as {found.unsolved}: complete or remove these rows")
        sequence = f", with solution {lengths.sequence}" if lengths.sequence else ""
        lines.append(f"longest prompt: {lengths.prompt} tokens{sequence} (tokenizer of {self.model})")
        init_args = self.sources["train"]["init_args"]
        if init_args.get("answer_pattern") == HASHES and init_args.get("solution") == init_args["answer"]:
            lines.append("solutions keep GSM8K's <<...>> and #### marks; as JSON lines, Gsm8kOfficial would remove them")
        if lengths.dropped:
            lines.append(f"{lengths.dropped} of {count} exceed the limits and are dropped")
        return lines


def config_text(plan: Plan) -> str:
    """Return the config as YAML with comments."""
    about = [
        f"{plan.stage.upper()} on {plan.dataset}, written by `reft-pl init`.",
        "",
        f"  reft-pl fit {' '.join(plan.arguments)}",
        "",
        *plan.findings,
    ]
    lines = [f"# {one_line(line)}".rstrip() for line in about]
    lines.append(f"run_dir: runs/{plan.run}")
    if plan.stage == "ppo" and plan.from_scratch:
        lines.append("# PPO starts from runs/sft/hf, the demo's warm-up: name a better model with --model.policy.init_from.")
    elif not plan.from_scratch:
        lines += _model(plan)
    lines += ["data:", "  train:", *_source(plan.sources["train"], "    - ")]
    if "validation" in plan.sources:
        lines += ["  validation:", *_source(plan.sources["validation"], "    - ")]
    else:
        lines.append("  validation: null  # null removes the base config's source")
        lines.append(f"  holdout: {plan.holdout}  # training questions that choose the checkpoint instead")
    if "test" in plan.sources:
        lines += ["  test:", "    test:", *_source(plan.sources["test"], "      ", "      ")]
    else:
        lines.append("  test: null  # for `reft-pl test`, name a source here as under train, below a name of the set")
    lines.append(f"  format: {{class_path: {type(plan.survey.format).__name__}}}")
    lines.append(f"  max_prompt_tokens: {plan.lengths.max_prompt_tokens}  # the longest takes {plan.lengths.prompt}")
    longest = f"with its solution {plan.lengths.sequence}" if plan.lengths.sequence else "with a response: a guess"
    lines.append(f"  max_tokens: {plan.lengths.max_tokens}  # {longest}")
    if plan.lengths.dropped:
        lines.append(f"  on_too_long: drop  # drops {plan.lengths.dropped}; error stops at the first")
    return "\n".join(lines) + "\n"


def _model(plan: Plan) -> list[str]:
    """Return the section of a pretrained model."""
    lines = ["model:", "  init_args:", "    policy:", f"      init_from: {_inline(plan.model)}"]
    if plan.stage == "sft":
        lines.append("      from_scratch: false")
    lines.append("      dtype: auto  # bfloat16 if the machine has instructions for it")
    if plan.stage == "sft":
        lines += [
            "    optimizer:",
            "      class_path: MasterAdamW",
            "      init_args: {lr: 1.0e-5}  # as the paper's 7B models",
        ]
    return lines


def _source(settings: Mapping[str, Any], first: str, others: str | None = None) -> list[str]:
    """Return a source in two lines."""
    indent = " " * len(first) if others is None else others
    return [f"{first}class_path: {settings['class_path']}", f"{indent}init_args: {_inline(settings['init_args'])}"]


def _inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    dumped: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return dumped.removesuffix("...\n").strip()
