import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reft_pl.cli import main

WORDS = [
    {"problem": f"Tom has {i} apples and buys {i + 2}. How many has he now?", "target": str(2 * i + 2),
     "rationale": f"Tom has {i} + {i + 2} = {2 * i + 2} apples."}
    for i in range(3, 23)
]  # fmt: skip
PROGRAMS = [
    {"item_id": f"svamp_{i}", "question": f"How many is {i} and 2?", "answer_value": f"{i + 2}.0",
     "answer_cot": f'def solution():\n    """How many?"""\n    result = {i} + 2\n    return result'}
    for i in range(20)
]  # fmt: skip
Init = Callable[..., dict[str, Any]]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.relative_to(Path.cwd()).as_posix()


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def init(capsys: pytest.CaptureFixture[str]) -> Init:
    """Run the command and return the config that it wrote; ``printed`` holds what it printed."""

    def run(*arguments: str) -> dict[str, Any]:
        code = main(["init", *arguments])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        assert printed.err == ""
        config: dict[str, Any] = yaml.safe_load(Path("my_run.yaml").read_text(encoding="utf-8"))
        return {"printed": printed.out, **config}

    return run


def test_the_config_of_a_file_trains_as_written(init: Init, working_folder: Path) -> None:
    """The whole way: survey 20 rows, write a config, take two optimizer steps with the embedded default's model."""
    bad = {**WORDS[4], "target": "1,5"}
    config = init(write(working_folder / "mine.jsonl", [*WORDS[:4], bad, *WORDS[5:]]))
    (source,) = config["data"]["train"]
    assert source == {
        "class_path": "HFDatasetSource",
        "init_args": {
            "path": "mine.jsonl", "question": "problem", "answer": "target", "solution": "rationale", "on_bad_row": "skip",
        },
    }  # fmt: skip
    assert config["data"]["format"] == {"class_path": "NaturalLanguage"}
    assert config["data"]["holdout"] == 1
    assert "train: 19 of 20 answers can be read" in config["printed"]
    assert "line 5 (mine_4) has the ambiguous answer '1,5'" in config["printed"]
    assert "memory: about" in config["printed"]
    command = "fit --config configs/sft.yaml --config my_run.yaml"
    assert config["printed"].rstrip().endswith(f"reft-pl {command}")
    assert main([*command.split(), "--trainer.max_steps", "2"]) == 0
    assert (working_folder / "runs" / "mine-sft" / "hf" / "config.json").is_file()


def test_programs_get_the_program_format(init: Init, working_folder: Path) -> None:
    config = init(write(working_folder / "programs.jsonl", PROGRAMS))
    assert config["data"]["train"] == [{"class_path": "AuthorsJson", "init_args": {"path": "programs.jsonl"}}]
    assert config["data"]["format"] == {"class_path": "PythonProgram"}
    assert config["data"]["max_prompt_tokens"] < config["data"]["max_tokens"]


def test_a_folder_gives_training_and_test_questions(init: Init, working_folder: Path) -> None:
    rows = [
        {"question": f"How many is {i} and 2?", "answer": f"It is <<{i}+2={i + 2}>>{i + 2}.\n#### {i + 2}"} for i in range(20)
    ]
    write(working_folder / "data" / "train.jsonl", rows[:15])
    write(working_folder / "data" / "test.jsonl", rows[15:])
    (working_folder / "data" / "train.py").write_text("open('imported', 'w')")
    (working_folder / "data" / "train.pkl").write_bytes(b"cos\nsystem\n(S'touch imported'\ntR.")
    config = init("data")
    assert config["data"]["train"] == [{"class_path": "Gsm8kOfficial", "init_args": {"path": "data/train.jsonl"}}]
    assert config["data"]["test"] == {
        "test": {"class_path": "Gsm8kOfficial", "init_args": {"path": "data/test.jsonl", "solutions": False}}
    }
    assert not (working_folder / "imported").exists()


def test_without_solutions_the_config_is_for_ppo(init: Init, working_folder: Path) -> None:
    rows = [{key: row[key] for key in ("problem", "target")} for row in WORDS]
    config = init(write(working_folder / "mine.jsonl", rows))
    assert "reft-pl fit --config configs/ppo.yaml --config my_run.yaml" in config["printed"]
    assert "SFT cannot train on this data" in config["printed"]
    assert "solution" not in config["data"]["train"][0]["init_args"]


def test_incomplete_solutions_are_reported(init: Init, working_folder: Path) -> None:
    config = init(write(working_folder / "mine.jsonl", [*WORDS[:19], {**WORDS[19], "rationale": None}]))
    assert "19 of 20 solutions can be trained on" in config["printed"]
    assert "SFT stops at the others, such as mine_19: complete or remove these rows" in config["printed"]


def test_rows_without_a_column_are_skipped(init: Init, working_folder: Path) -> None:
    first = {key: WORDS[0][key] for key in ("problem", "rationale")}
    config = init(write(working_folder / "mine.jsonl", [first, *WORDS[1:]]))
    assert "train: 19 of 20 answers can be read" in config["printed"]
    assert "1 missing column, such as: line 1 has no column 'target'" in config["printed"]
    assert config["data"]["train"][0]["init_args"]["on_bad_row"] == "skip"


def test_outliers_do_not_set_the_limits(init: Init, working_folder: Path) -> None:
    rows = [{**WORDS[i % 20], "problem": f"{i}. {WORDS[i % 20]['problem']}"} for i in range(120)]
    rows[7]["rationale"] = "Tom counts again. " * 300
    config = init(write(working_folder / "mine.jsonl", rows))
    assert config["data"]["max_tokens"] <= 200
    assert config["data"]["on_too_long"] == "drop"
    assert "1 of 120 exceed the limits and are dropped" in config["printed"]


def test_another_model_sets_lengths_and_learning_rate(init: Init, working_folder: Path, micro_model: Path) -> None:
    config = init(write(working_folder / "mine.jsonl", WORDS), "--model", str(micro_model))
    settings = config["model"]["init_args"]
    assert settings["policy"] == {"init_from": str(micro_model), "from_scratch": False, "dtype": "auto"}
    assert settings["optimizer"]["init_args"]["lr"] == 1e-5


def test_hostile_names_and_values_stay_data(init: Init, working_folder: Path) -> None:
    question, answer = "question: [a]\n# \x1b[2J", "'answer'\u2028: {b"
    rows = [{question: f"How many is {i} and 2?", answer: i + 2} for i in range(10)]
    rows[3][answer] = "\nrun_dir: /elsewhere\n\x1b[2J"
    config = init(write(working_folder / "mine.jsonl", rows), "--question", question, "--answer", answer)
    assert config["run_dir"] == "runs/mine-ppo"
    assert config["data"]["train"][0]["init_args"] == {
        "path": "mine.jsonl", "question": question, "answer": answer, "on_bad_row": "skip",
    }  # fmt: skip
    assert "\x1b" not in config["printed"]


def test_a_file_is_overwritten_only_by_force(init: Init, working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write(working_folder / "mine.jsonl", WORDS)
    (working_folder / "my_run.yaml").write_text("mine: true")
    assert main(["init", dataset]) == 2
    assert "my_run.yaml exists: give --output another name, or --force to overwrite it" in capsys.readouterr().err
    assert (working_folder / "my_run.yaml").read_text() == "mine: true"
    assert init(dataset, "--force")["run_dir"] == "runs/mine-sft"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.jsonl"], "there is no file or folder 'missing.jsonl'"),
        (["mine.jsonl", "--output", "."], "is a folder"),
        (["mine.jsonl", "--output", "x.json"], "let it end in .yaml"),
        (["mine.jsonl", "--answer", "nothing"], "there is no column 'nothing'"),
        (["unreadable.jsonl"], "no answer in any of the columns"),
        (["single.jsonl"], "give at least 2"),
        (["mine.jsonl", "--model", "models/missing"], "there is no model at models/missing"),
        (["nobody/nothing"], "cannot load the dataset nobody/nothing split train"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str],
    sentence: str,
    working_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(working_folder))
    write(working_folder / "mine.jsonl", WORDS)
    write(working_folder / "single.jsonl", WORDS[:1])
    write(working_folder / "unreadable.jsonl", [{"question": "Why?", "answer": "Because of the wind."}])
    assert main(["init", *arguments]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1].startswith("reft-pl init: ")
    assert sentence in printed[-1]
    assert not (working_folder / "my_run.yaml").exists()
