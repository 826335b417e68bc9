"""Write the sections of a model card from a run's record; empty sections are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from reft_pl.escapes import code_span, escape, fenced, markdown_table, markdown_text
from reft_pl.evaluation.card_metadata import metadata
from reft_pl.evaluation.files import write_aside
from reft_pl.evaluation.run_record import Figure, RunRecord, read_run
from reft_pl.models.base_model_metadata import CARD_FILE
from reft_pl.models.export import read_description

PAPER = "https://arxiv.org/abs/2401.08967"

BIBTEX = """@misc{luong2024reft,
  title         = {{ReFT}: Reasoning with Reinforced Fine-Tuning},
  author        = {Luong, Trung Quoc and Zhang, Xinbo and Jie, Zhanming and Sun, Peng and Jin, Xiaoran and Li, Hang},
  year          = {2024},
  eprint        = {2401.08967},
  archivePrefix = {arXiv}
}"""

STAGES = {
    "sft": "fine-tuned on annotated solutions (SFT: the warm-up of ReFT, and what it is compared with)",
    "offline_self_training": (
        "fine-tuned on annotated solutions and correct ones that a policy sampled for the training questions (offline "
        "self-training)"
    ),
    "ppo": (
        "trained with ReFT: it wrote its own solutions to the training questions, these were executed, and PPO reinforced "
        "the ones with a correct answer, with a KL penalty that keeps it near the model it started from"
    ),
    "online_self_training": (
        "trained by online self-training: it wrote its own solutions to the training questions, these were executed, and it "
        "was fine-tuned on the correct ones together with the annotated ones"
    ),
    "reranker": "trained to tell correct solutions from wrong ones: a classifier in which class 1 is a correct solution",
}
"""What was done, after "A language model that started from X, ", by stage; offline self-training is SFT on its data."""

READING = {
    "PythonProgram": (
        "The last two lines open the solution, a Python program; its `solution()` returns the answer. The program ends at "
        "its first blank line."
    ),
    "NaturalLanguage": "The solution is written in words, and its answer is what follows `Therefore, the answer is:`.",
    "Chat": "The question is formatted with the tokenizer's chat template.",
}

MEANINGS = {
    "Top-1": "Top-1: the greedy solution",
    "Voting": "Voting@k: the most common answer of k samples",
    "Rerank": "Rerank@k: the one of k samples that the reranker scores highest",
    "Weighted": "Weighted@k: the answer of k samples with the largest sum of the reranker's scores",
    "Tie-break": "Tie-break@k: the most common answer of k samples, and among equally common ones that with the most score",
    "Pass": "Pass@k: at least one of k samples is correct, the upper bound of any choice among them",
}
"""The columns of the table, in order."""

INTENDED_USE = "Answering questions of the kind that it was trained on, and research on teaching language models to reason."
RERANKERS_USE = "Choosing among sampled solutions to questions of the kind that it was trained on."

LIMITS = (
    "- Its answers may be wrong. Only the results above were measured: nothing about other kinds of questions, other "
    "languages, safety or bias."
)
PROGRAMS_ARE_UNTRUSTED = "- It writes programs that nobody has looked at: run them in a sandbox, as reft-pl does."


_DATA_SETTINGS = ("batch_size", "max_prompt_tokens", "max_tokens")
_NOT_SETTINGS = ("policy", "sampler", "sandbox", "seed")  # no effect on what is learned, or listed elsewhere


def text(record: RunRecord) -> str:
    """Return the card below its metadata, as Markdown."""
    sections = {
        "Results": results(record),
        "Training data": training_data(record),
        "Training procedure": procedure(record),
        "Prompt": prompt(record),
        "Expected response": expected_response(record),
        "Intended use": intended_use(record),
        "Limits": limits(record),
        "Citation": f"The method is that of [ReFT]({PAPER}):\n\n{fenced(BIBTEX, 'bibtex')}",
    }
    body = [f"## {title}\n\n{section}" for title, section in sections.items() if section]
    return "\n\n".join([f"# {markdown_text(record.name)}", introduction(record), *body]) + "\n"


def introduction(record: RunRecord) -> str:
    """Describe the model and its origin."""
    description = record.description
    base, stage = description.get("base"), str(description.get("stage"))
    sources = record.config.get("data", {}).get("train") or ()
    if stage == "sft" and "SelfTraining" in map(_class_name, sources):
        stage = "offline_self_training"
    started = code_span(_place(str(base), 2))
    if not base:
        origin = "A language model"
    elif description.get("from_scratch"):
        origin = f"A language model with the architecture and the tokenizer of {started}, its weights drawn at random,"
    else:
        origin = f"A language model that started from {started},"
    return f"{origin} {STAGES.get(stage, f'trained in the stage {code_span(stage)}')}. It was trained with reft-pl."


def results(record: RunRecord) -> str:
    """Return the table of test results, the meanings of its columns, and the validation figure."""
    parts = []
    if tests := record.tests:
        columns = [kind for figures in tests.values() for kind in figures]
        columns = sorted(dict.fromkeys(columns), key=lambda kind: list(MEANINGS).index(kind.partition("@")[0]))
        rows = [_row(name, figures, columns) for name, figures in tests.items()]
        shown = {kind.partition("@")[0] for kind in columns}
        parts.append(markdown_table(["test set", "questions", *columns], rows))
        parts.append("Shares of questions that were answered rightly, with 95% intervals.")
        parts.append("\n".join(f"- {meaning}" for kind, meaning in MEANINGS.items() if kind in shown))
        if record.sampling:
            parts.append(f"Samples were drawn {_drawn(record.sampling)}.")
    parts += [
        f"On the validation questions, by which the checkpoint may have been chosen: {code_span(name)} {value:.1%}."
        for name, value in record.results.get("validation", {}).items()
        if name not in ("weights", "val/loss")
    ]
    return "\n\n".join(parts)


def training_data(record: RunRecord) -> str:
    """List the config's data sources and what was held out."""
    data, learned = record.config.get("data", {}), record.results.get("data", {})
    lines = [f"- {code_span(_call(source))}" for source in data.get("train") or ()]
    lines += [f"- for validation: {code_span(_call(source))}" for source in data.get("validation") or ()]
    if data.get("holdout"):
        lines.append(f"- for validation: {markdown_text(str(data['holdout']))} of these questions, held out of training")
    tests, samples = data.get("test") or {}, data.get("samples") or {}
    lines += [f"- for testing, {code_span(name)}: {code_span(_call(source))}" for name, source in tests.items()]
    lines += [f"- samples, {code_span(name)}: {code_span(_place(path, 3))}" for name, path in samples.items()]
    if data.get("train"):
        lines.append("\nTraining questions that are also validation or test questions were left out of training.")
    if learned:
        solutions, taken = learned["solutions"], learned.get("solutions_an_epoch", learned["solutions"])
        part = f" An epoch took {taken:,} of them." if taken < solutions else ""
        lines.append(f"\n{solutions:,} different solutions to learn from, {learned['right']:.1%} of them correct.{part}")
    return "\n".join(lines)


def procedure(record: RunRecord) -> str:
    """Describe the length of training, how the checkpoint was chosen, and the settings."""
    fit = record.results.get("fit", {})
    parts = []
    if fit.get("batches"):
        parts.append(f"{fit['batches']:,} training batches with {fit['optimizer_steps']:,} optimizer steps in all.")
    if best := fit.get("best"):
        monitor, score = next(item for item in best.items() if item[0] != "batch")
        parts.append(
            f"The weights are those after batch {best['batch']:,}, the best on the validation questions "
            f"({code_span(monitor)} {score:.1%})."
        )
    rows = [[code_span(key), code_span(str(value))] for key, value in _settings(record.config).items()]
    return "\n\n".join(filter(None, [" ".join(parts), markdown_table(["setting", "value"], rows) if rows else ""]))


def prompt(record: RunRecord) -> str:
    """Return the format, with one question rendered exactly."""
    description = record.description
    example, cot_format = description.get("example"), description.get("format") or {}
    if not example:
        return ""
    lengths = f"up to {description['max_prompt_tokens']:d} tokens, and {description['max_tokens']:d} with the solution"
    pattern = (cot_format.get("init_args") or {}).get("answer_pattern")
    reading = [READING.get(_class_name(cot_format), ""), f"Its answer is found by {code_span(pattern)}." if pattern else ""]
    return "\n\n".join(
        [
            f"The prompt ({lengths}) for the question {code_span(example['question'])} is, to the letter:",
            fenced(example["prompt"], "text"),
            *filter(None, [" ".join(filter(None, reading))]),
        ]
    )


def expected_response(record: RunRecord) -> str:
    """Show a correct solution that this model wrote in a test."""
    row = record.example
    if row is None:
        return ""
    language = "python" if _writes_programs(record) else "text"
    return "\n\n".join(
        [
            f"To this question of the test set {code_span(row['set'])}",
            fenced(row["question"], "text"),
            "this model wrote, greedily,",
            fenced(row["response"], language),
            f"which gives {code_span(str(row['answer']))}, the correct answer.",
        ]
    )


def intended_use(record: RunRecord) -> str:
    """Describe the intended use, with the command for it."""
    if record.description.get("stage") == "reranker":
        return RERANKERS_USE
    return f"{INTENDED_USE}\n\n" + fenced("reft-pl solve FOLDER_OR_HUB_ID 'Your question'", "sh")


def limits(record: RunRecord) -> str:
    """State what was not measured."""
    return f"{LIMITS}\n{PROGRAMS_ARE_UNTRUSTED}" if _writes_programs(record) else LIMITS


def _row(name: str, figures: Mapping[str, Figure], columns: list[str]) -> list[str]:
    """Format a row; if the number of questions differs between figures, each cell shows its own."""
    counts = {figure.questions for figure in figures.values()}
    questions = "" if len(counts) > 1 else _questions(*counts)
    cells = {kind: _percent(figure) for kind, figure in figures.items()}
    if len(counts) > 1:
        asked = {kind: _questions(figure.questions) for kind, figure in figures.items()}
        cells = {kind: f"{cell}, {asked[kind]} questions" if asked[kind] else cell for kind, cell in cells.items()}
    return [code_span(name), questions, *(cells.get(kind, "") for kind in columns)]


def _questions(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _percent(figure: Figure) -> str:
    return f"{figure.value:.1%} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def _drawn(sampling: Mapping[str, Any]) -> str:
    parts = [f"at temperature {sampling['temperature']:g}"]
    parts += [f"from the {sampling['top_k']:d} likeliest tokens"] if sampling.get("top_k") else []
    parts += [f"with top-p {sampling['top_p']:g}"] if sampling.get("top_p", 1.0) < 1 else []
    return ", ".join(parts)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that affect learning, by dotted name."""
    model, data = config.get("model", {}).get("init_args") or {}, config.get("data", {})
    if model.get("rewards"):  # in place of the one reward, for which the config has the default
        model = {**model, "reward": None, "rewards": _weighted(model["rewards"])}
    settings = dict(_leaves({key: value for key, value in model.items() if key not in _NOT_SETTINGS}))
    settings["dtype"] = (model.get("policy") or {}).get("dtype")
    settings |= {key: data.get(key) for key in _DATA_SETTINGS}
    settings["seed"] = config.get("seed_everything")
    return {key: value for key, value in settings.items() if value is not None}


def _weighted(rewards: Sequence[Mapping[str, Any]]) -> str:
    """Format the rewards of the config as their sum: ``AnswerReward + 0.5 * my_file.brief``."""
    terms = []
    for entry in rewards:
        reward, weight = entry["reward"], entry.get("weight", 1.0)
        name = entry.get("name") or (_class_name(reward) if isinstance(reward, dict) else reward)
        terms.append(name if weight == 1 else f"{weight:g} * {name}")
    return " + ".join(terms)


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings by dotted name; the name of an object gives its class."""
    for key, value in settings.items():
        if isinstance(value, dict) and "class_path" in value:
            yield prefix + key, _class_name(value)
            yield from _leaves(value.get("init_args") or {}, f"{prefix}{key}.")
        elif isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _call(source: Mapping[str, Any]) -> str:
    """Format a source of the config as a call: ``AuthorsJson(path='data/x.json')``."""
    arguments = {key: value for key, value in (source.get("init_args") or {}).items() if value is not None}
    return f"{_class_name(source)}({', '.join(f'{key}={_shown(value)}' for key, value in arguments.items())})"


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        return _call(value)
    return repr(_place(value, 1) if isinstance(value, str) else value)


def _place(name: str, parts: int) -> str:
    """Return a hub id or path as in the config; of an absolute path only the last parts, to hide the machine's folders."""
    path = Path(name)
    return "/".join(path.parts[-parts:]) if path.is_absolute() else name


def _class_name(settings: Mapping[str, Any]) -> str:
    return str(settings.get("class_path")).rpartition(".")[2]


def _writes_programs(record: RunRecord) -> bool:
    return _class_name(record.description.get("format") or {}) == "PythonProgram"


def model_card(run_dir: Path, description: Mapping[str, Any] | None = None) -> ModelCard:
    """Return the card of a run's model. It includes only figures measured on exactly these weights.

    Args:
        run_dir: The run folder, with any of ``config.yaml``, ``results.json`` and ``predictions/``.
        description: Content of the model's ``reft.json``; None reads it from ``hf/``.

    Raises:
        UserError: ``results.json`` or ``reft.json`` is broken.
    """
    record = read_run(run_dir, read_description(run_dir / "hf") if description is None else description)
    return ModelCard(escape(f"---\n{metadata(record).to_yaml()}\n---\n\n{text(record)}"))


def write_card(run_dir: Path) -> None:
    """Update the card in ``hf/`` with the latest results; does nothing if there is no ``hf/``."""
    folder = run_dir / "hf"
    if folder.is_dir():
        write_aside(folder / CARD_FILE, str(model_card(run_dir)))
