"""Load the models that `reft-pl solve` names: the policy that answers, and the reranker that chooses."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.utils import logging

from reft_pl.commands.question_solver import QuestionSolver, Scorer
from reft_pl.data.codec import Codec
from reft_pl.data.stop_ids import load_stop_ids
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError, described
from reft_pl.evaluation.reranker_scores import solution_scores
from reft_pl.formats import CoTFormat, format_from_settings
from reft_pl.hub import locate, stored_file
from reft_pl.models.adapter_folder import CONFIG_FILE, locate_weights
from reft_pl.models.classifier import load_classifier
from reft_pl.models.export import DESCRIPTION_FILE, read_description
from reft_pl.models.loading import load_policy
from reft_pl.models.pretrained import load_config
from reft_pl.models.reranker import Reranker
from reft_pl.models.settings import PolicySettings
from reft_pl.resources import model_folder
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.terminal import echo
from reft_pl.types import SamplingParams

DEFAULT_FORMAT = "PythonProgram"
DEFAULT_MAX_TOKENS = 700
"""For models without a description."""

MICRO_BATCH_TOKENS = 8192
"""Rows times longest row that a reranker scores at once."""


def load_solver(options: Namespace) -> QuestionSolver:
    """Load the model of the command line, on the GPU if there is one.

    Raises:
        UserError: The model does not exist, or does not support the options.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = _source(options.model)
    description = _description(source)
    cot_format = _format(options.format, _trained_format(description, source), source)
    trust: bool = options.trust_remote_code
    dtype = options.dtype or _stored_dtype(source, trust)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reranker = load_reranker(options.reranker, trust, device) if options.reranker else None
    policy = load_policy(PolicySettings(init_from=source, dtype=dtype, trust_remote_code=trust))
    max_tokens = _max_tokens(options.max_tokens or description.get("max_tokens"), policy.positions, source)
    max_prompt_tokens = min(max_tokens - 1, description.get("max_prompt_tokens", max_tokens))
    add_bos = not options.no_bos and description.get("add_bos", True)
    temperature = options.temperature if options.temperature is not None else float(options.samples > 1)
    codec = Codec(
        load_tokenizer(source, trust), cot_format, max_prompt_tokens, max_tokens, add_bos, load_stop_ids(source, trust)
    )
    codec.check_embeddings(policy.embedding_rows, source)
    return QuestionSolver(
        policy.to(device),
        codec,
        InProcessSampler(),
        CPythonSandbox(),
        SamplingParams(max_tokens, temperature, options.top_k),
        n=options.samples,
        seed=options.seed,
        reranker=reranker,
    )


def load_reranker(name: str, trust_remote_code: bool, device: str) -> Scorer:
    """Load a trained reranker from its run folder or its export; return the function that scores solutions with it.

    Raises:
        UserError: ``name`` is another kind of model, or not a model at all.
    """
    source = _source(name)
    description = _description(source)
    if description.get("stage") != "reranker":
        raise UserError(f"--reranker {name} is not a reranker: name a run folder that configs/reranker.yaml trained")
    cot_format = format_from_settings(_trained_format(description, source) or {})
    max_tokens = description.get("max_tokens", DEFAULT_MAX_TOKENS)
    tokenizer, add_bos = load_tokenizer(source, trust_remote_code), description.get("add_bos", True)
    codec = Codec(tokenizer, cot_format, max_tokens - 1, max_tokens, add_bos)
    classifier = load_classifier(source, torch.float32, trust_remote_code=trust_remote_code)
    reranker = Reranker(classifier).to(device)
    return lambda problem, solutions: solution_scores(reranker, codec, problem, solutions, MICRO_BATCH_TOKENS)


def _source(name: str) -> str:
    """Return the model folder that ``name`` means, including ``hf/`` of a run folder, or a hub id."""
    folder = model_folder(name)
    if folder is None:
        return name
    return str(folder / "hf" if not _is_model(folder) and _is_model(folder / "hf") else folder)


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", CONFIG_FILE))


def _description(source: str) -> dict[str, Any]:
    """Return the model's ``reft.json``; empty for other models."""
    location, options = locate(source)
    file = stored_file(location, DESCRIPTION_FILE, options)
    return read_description(file.parent) if file else {}


def _trained_format(description: Mapping[str, Any], source: str) -> Mapping[str, Any] | None:
    trained = description.get("format")
    if trained is not None and not isinstance(trained, Mapping):
        raise UserError(f"{source}/{DESCRIPTION_FILE} has a format that is no mapping: export the model again")
    return trained


def _format(wanted: str | None, trained: Mapping[str, Any] | None, source: str) -> CoTFormat:
    """Return the prompt format; print a note if the model was trained with another one.

    The model's file can name only our formats. A user's class is imported only if ``--format`` names it; it takes the file's
    arguments if the file names the same class.
    """
    settings: Mapping[str, Any] = {"class_path": wanted} if wanted else trained or {"class_path": DEFAULT_FORMAT}
    if wanted and "." in wanted and not wanted.startswith("reft_pl."):
        same = trained is not None and trained.get("class_path") == wanted
        cot_format = format_from_settings(trained if trained is not None and same else settings, _users_format(wanted))
    else:
        cot_format = format_from_settings(settings)
    if trained and cot_format.settings() != trained:
        echo(f"note: {source} was trained with {trained} and will be prompted with {cot_format.settings()}", error=True)
    return cot_format


def _users_format(path: str) -> type[CoTFormat]:
    """Import the class that ``--format`` names, from an installed package or a file in the working folder."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except Exception as error:  # running the user's file may raise anything
        raise UserError(
            f"--format {path} cannot be imported ({described(error)}): put its file into the working folder, or correct it"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, CoTFormat)):
        raise UserError(f"--format {path} is not a prompt format: name a subclass of reft_pl.formats.base.CoTFormat")
    return kind


def _max_tokens(wanted: int | None, positions: int | None, source: str) -> int:
    longest = DEFAULT_MAX_TOKENS if positions is None else positions + 1  # the last token is never read
    if wanted is not None and positions is not None and wanted > longest:
        raise UserError(f"--max_tokens is {wanted}, and {source} has {positions} positions: lower it")
    return wanted or min(DEFAULT_MAX_TOKENS, longest)


def _stored_dtype(source: str, trust_remote_code: bool) -> Literal["float32", "auto"]:
    """Return the dtype to load: float32 if the weights are stored in it, else the fastest here."""
    base, options, _ = locate_weights(source, trust_remote_code)
    return "float32" if str(load_config(base, options).dtype).endswith("float32") else "auto"
