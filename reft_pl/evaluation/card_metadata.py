"""The metadata block of a model card, in the hub's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from reft_pl.escapes import one_line
from reft_pl.evaluation.run_record import RunRecord
from reft_pl.models.base_model_metadata import INHERITED
from reft_pl.resources import HUB_ID

TASK = "Questions with checkable answers"
CLASSIFIERS = ("reranker",)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What the hub wants to know of a dataset; ``type`` is its hub id where it has one, which ``on_hub`` says."""

    type: str
    config: str | None = None
    split: str | None = None
    on_hub: bool = False


def metadata(record: RunRecord) -> ModelCardData:
    """License and base model as inherited, training sets that are on the hub, and the figures as ``model-index``."""
    results = eval_results(record)
    stage = record.description.get("stage")
    sources = record.config.get("data", {}).get("train") or []
    trained_on = dict.fromkeys(dataset.type for dataset in map(dataset_of, sources) if dataset.on_hub)
    return ModelCardData(
        **inherited_values(record.description.get("inherited", {})),
        library_name="transformers",
        pipeline_tag="text-classification" if stage in CLASSIFIERS else "text-generation",
        tags=["reft", "reft-pl", "reasoning", *([one_line(str(stage))] if stage else [])],
        datasets=list(trained_on) or None,
        metrics=["accuracy"] if results else None,
        eval_results=results or None,
        model_name=one_line(record.name) if results else None,
    )


def inherited_values(inherited: Mapping[str, Any]) -> dict[str, Any]:
    """What a card takes over from another one: texts of one line and lists of such, and nothing else that stands there."""
    kept: dict[str, Any] = {}
    for key in INHERITED:
        value = inherited.get(key)
        if isinstance(value, str):
            kept[key] = one_line(value)
        elif isinstance(value, list) and all(isinstance(part, str) for part in value):
            kept[key] = [one_line(part) for part in value]
    return kept


def eval_results(record: RunRecord) -> list[EvalResult]:
    """One result a figure, with fractions as values.

    Of a set of which a part was sampled, the figures of that part are those of a dataset of its own.
    """
    sources = record.config.get("data", {}).get("test") or {}
    results, seen = [], set()
    for name, figures in record.tests.items():
        dataset = _plain(dataset_of(sources[name]) if name in sources else Dataset(name))
        if dataset in seen:  # the hub's form would put figures of two sets under the name of one
            dataset = replace(dataset, config=one_line(name))
        seen.add(dataset)
        whole = max((figure.questions or 0 for figure in figures.values()), default=0)
        for kind, figure in figures.items():
            part = f"{figure.questions:,} questions" if figure.questions and figure.questions < whole else None
            results.append(
                EvalResult(
                    task_type="text-generation",
                    task_name=TASK,
                    dataset_type=dataset.type,
                    dataset_name=one_line(f"{name} ({part})" if part else name),
                    dataset_config=", ".join(filter(None, [dataset.config, part])) or None,
                    dataset_split=dataset.split,
                    metric_type="pass@k" if kind.startswith("Pass@") else "accuracy",
                    metric_name=kind,
                    metric_value=round(figure.value, 4),
                )
            )
    return results


def _plain(dataset: Dataset) -> Dataset:
    type_, config, split = (
        text if text is None else one_line(str(text)) for text in (dataset.type, dataset.config, dataset.split)
    )
    return Dataset(type_ or "", config, split, dataset.on_hub)


def dataset_of(source: Mapping[str, Any]) -> Dataset:
    """The dataset that a source of the config reads: on the hub, a file by its name, or what the source itself makes.

    Args:
        source: ``class_path`` and ``init_args`` as in ``config.yaml``.
    """
    name, arguments = source["class_path"].rpartition(".")[2], source.get("init_args") or {}
    if "annotated" in arguments:  # a source that adds to another one
        return dataset_of(arguments["annotated"])
    path = str(arguments.get("path") or "")
    if name == "Gsm8kOfficial":
        return Dataset("openai/gsm8k", config="main", on_hub=True)
    if name == "HFDatasetSource" and HUB_ID.fullmatch(path) and not Path(path).suffix and not Path(path).exists():
        return Dataset(path, config=arguments.get("subset"), split=arguments.get("split"), on_hub=True)
    return Dataset(Path(path).stem if path else name, split=arguments.get("split"))
