"""Rewards of users' files from the command line: the examples of the how-to, on a model of a few thousand weights."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reft_pl.cli import main

Overlay = Callable[..., str]
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "reward.md"


@pytest.fixture
def fit(overlay: Overlay, micro_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Run one epoch of PPO in a folder with the examples of the how-to; settings are those of the module and the data."""
    for name, code in re.findall(r"`(my_\w+\.py)`\):\n\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, data: dict[str, Any] | None = None, model: Path | None = None, **settings: Any) -> int:
        init_args = {"policy": {"from_scratch": True}, **settings}
        config = overlay(
            "run", init_from=model or micro_model, data=data or {}, model={"init_args": init_args}, trainer={"max_epochs": 1}
        )
        return main(["fit", "--config", "configs/ppo.yaml", "--config", config, *arguments])

    before = set(sys.modules)
    yield run
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def rollouts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "rollouts.jsonl").read_text().splitlines()]


def curve(folder: Path, name: str) -> list[float]:
    events = EventAccumulator(str(folder / "run"), size_guidance={"scalars": 0}).Reload()
    return [event.value for event in events.Scalars(name)]


def questions(folder: Path) -> dict[str, Any]:
    """A dataset with two columns, of which every second row is above level 3."""
    rows = [
        {"question": f"What is {i} + {i}?", "answer": 2 * i, "keywords": ["def", "e"], "level": 5 * (i % 2)} for i in range(12)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"class_path": "HFDatasetSource", "init_args": {"path": "sums.jsonl", "columns": ["keywords", "level"]}}
    return {"train": [source], "validation": None, "holdout": 4}


def test_a_function_by_its_path(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--model.reward", "my_functions.brief") == 0
    lines = rollouts(tmp_path)
    assert len(lines) == 12
    assert [line["reward"] for line in lines] == pytest.approx([-len(line["text"]) / 1000 for line in lines])
    assert "reward: my_functions.brief" in (tmp_path / "run" / "config.yaml").read_text()
    assert fit("--model.reward", "my_functions.brief") == 0
    assert rollouts(tmp_path) == lines, "the same command resumes the finished run"
    assert fit("--model.reward", "AnswerReward") == 2, "another reward is another run"


@pytest.mark.slow
def test_weighted_rewards_with_columns_and_none(fit: Callable[..., int], tmp_path: Path) -> None:
    rewards = [
        {"reward": "my_functions.brief", "weight": 0.5},
        {"reward": "my_columns.mentions", "weight": 2.0, "name": "keywords"},
        {"reward": "my_judge.judged", "weight": 0.0},
    ]
    assert fit(data=questions(tmp_path), rewards=rewards, reward_timeout=60.0) == 0
    lines = rollouts(tmp_path)
    brief = [-len(line["text"]) / 1000 for line in lines]
    shares = [("def" in line["text"]) / 2 + ("e" in line["text"]) / 2 for line in lines]
    judged = [float("return" in line["text"]) for line in lines]
    easy = [line["gold"] % 4 == 0 for line in lines]
    sums = [0.5 * b + (2 * s if low else 0) for b, s, low in zip(brief, shares, easy, strict=True)]
    assert 0 < sum(easy) < len(easy)
    assert [line["reward"] for line in lines] == pytest.approx(sums, abs=1e-6)
    for name, values in {"brief": brief, "judged": judged}.items():
        assert curve(tmp_path, f"reward/{name}") == pytest.approx([sum(values[:4]) / 4, sum(values[4:]) / 4], abs=1e-6)
    first = [share for share, low in zip(shares[:4], easy[:4], strict=True) if low]
    assert curve(tmp_path, "reward/keywords")[0] == pytest.approx(sum(first) / len(first) if first else 0)
    assert curve(tmp_path, "rollout/unrewarded") == [0, 0]
    card = (tmp_path / "run" / "hf" / "README.md").read_text()
    assert "0.5 * my_functions.brief + 2 * keywords + 0 * my_judge.judged" in card
    assert "AnswerReward" not in card


@pytest.mark.slow
def test_none_leaves_samples_out_of_the_update(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit("--model.reward=my_columns.mentions", data=questions(tmp_path), samples_per_problem=2, advantages="RLOO") == 0
    lines = rollouts(tmp_path)
    left_out = [line["reward"] is None for line in lines]
    assert left_out == [line["gold"] % 4 != 0 for line in lines]
    assert curve(tmp_path, "rollout/unrewarded") == [sum(left_out[:8]) / 8, sum(left_out[8:]) / 8]


@pytest.mark.slow
def test_a_function_of_trl_in_a_chat(
    fit: Callable[..., int], micro_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    instruct = tmp_path / "instruct"
    shutil.copytree(micro_model, instruct)
    (instruct / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}")
    code = (tmp_path / "my_trl.py").read_text()
    check = "    assert all(p[-1]['role'] == 'user' for p in prompts) and set(kwargs) >= {'completion_ids', 'keywords'}\n"
    (tmp_path / "my_trl.py").write_text(code.replace("    return [", f"{check}    return [").replace("<answer>", "e"))
    data = questions(tmp_path) | {"format": {"class_path": "Chat"}}
    assert fit("--model.reward", "my_trl.has_answer_tag", data=data, model=instruct) == 0, capsys.readouterr().err
    lines = rollouts(tmp_path)
    assert [line["reward"] for line in lines] == [float("e" in line["text"]) for line in lines]


@pytest.mark.slow
def test_mistakes_are_one_sentence(fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_broken.py").write_text("def broken(completions):\n    return [1 / 0 for text in completions]\n")
    for arguments, sentence in (
        (["--model.reward", "my_broken.broken"], "broken raised ZeroDivisionError: division by zero in line 2 of my_broken.py"),
        (["--model.reward", "my_columns.mentions"], "mentions needs 'keywords', but functions get completions"),
        (
            ["--model.reward", "my_functions.breif"],
            "or the full path of a class or function, as my_file.MyClass",
        ),
        (
            ["--model.reward=my_functions.brief", "--model.rewards=[{reward: my_functions.brief}]"],
            "reft-pl fit: model.reward and model.rewards are both set: list all rewards in model.rewards",
        ),
    ):
        assert exit_code(fit, *arguments) == 2
        message = capsys.readouterr().err
        assert sentence in message
        assert "Traceback" not in message


def exit_code(fit: Callable[..., int], *arguments: str) -> int:
    try:
        return fit(*arguments)
    except SystemExit as stop:
        return int(str(stop.code))
