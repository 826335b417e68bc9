"""Build the hub metadata block of a model card."""

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
    """Hub metadata of a dataset; ``type`` is its hub id if ``on_hub``, else any name."""

    type: str
    config: str | None = None
    split: str | None = None
    on_hub: bool = False


def metadata(record: RunRecord) -> ModelCardData:
    """Return the metadata: inherited license and base model, training sets on the hub, and figures as ``model-index``."""
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
    """Return the values to inherit from another card: one-line strings and lists of them; anything else is dropped."""
    kept: dict[str, Any] = {}
    for key in INHERITED:
        value = inherited.get(key)
        if isinstance(value, str):
            kept[key] = one_line(value)
        elif isinstance(value, list) and all(isinstance(part, str) for part in value):
            kept[key] = [one_line(part) for part in value]
    return kept


def eval_results(record: RunRecord) -> list[EvalResult]:
    """Return one result per figure, with fractions as values.

    If only part of a test set was sampled, the figures of that part are listed as a separate dataset.
    """
    sources = record.config.get("data", {}).get("test") or {}
    results, seen = [], set()
    for name, figures in record.tests.items():
        dataset = _plain(dataset_of(sources[name]) if name in sources else Dataset(name))
        if dataset in seen:  # the hub would merge the figures of two sets with the same name
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
    """Return the dataset that a source in the config reads: from the hub, from a file, or generated.

    Args:
        source: ``class_path`` and ``init_args`` as in ``config.yaml``.
    """
    name, arguments = source["class_path"].rpartition(".")[2], source.get("init_args") or {}
    if "annotated" in arguments:  # a source that wraps another one
        return dataset_of(arguments["annotated"])
    path = str(arguments.get("path") or "")
    if name == "Gsm8kOfficial":
        return Dataset("openai/gsm8k", config="main", on_hub=True)
    if name == "HFDatasetSource" and HUB_ID.fullmatch(path) and not Path(path).suffix and not Path(path).exists():
        return Dataset(path, config=arguments.get("subset"), split=arguments.get("split"), on_hub=True)
    return Dataset(Path(path).stem if path else name, split=arguments.get("split"))
