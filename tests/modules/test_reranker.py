import json
import math
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reft_pl.cli import main
from reft_pl.cli.figures import KINDS
from reft_pl.data.reranker_data import Candidate
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line
from reft_pl.evaluation.report.scalars import read_curves
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import RerankerModule
from reft_pl.types import Problem
from tests.modules.stops import SIGNAL_AT, assert_same_run

Overlay = Callable[..., str]


def item(index: int, kinds: Sequence[str]) -> SampledQuestion:
    """Samples with a text that reveals the verdict: ``r``ight, ``w``rong, ``n``o answer."""
    bodies = {"r": "    return a + b", "w": "    return a * b", "n": "    return c"}
    answers = {"r": float(index), "w": index + 1.0, "n": None}
    predictions = [
        Prediction(f"def solution():\n    x = {i}\n{bodies[kind]}", answers[kind], kind == "r") for i, kind in enumerate(kinds)
    ]
    return SampledQuestion(f"q_{index}", f"What is number {index}?", float(index), tuple(predictions))


def write(path: Path, numbers: range) -> str:
    draw = random.Random(0)
    path.write_text("".join(to_line(item(i, draw.choices("rwn", k=6))) for i in numbers))
    return str(path)


@pytest.fixture
def arguments(overlay: Overlay, tmp_path: Path) -> list[str]:
    """A reranker on the trunk of a barely trained policy, with easily separable samples."""
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0
    config = {
        "run_dir": str(tmp_path / "reranker"),
        "model": {
            "init_args": {
                "policy": {"init_from": str(tmp_path / "sft" / "hf")},
                "optimizer": {"init_args": {"lr": 1e-2}},
                "micro_batch_tokens": 400,
            }
        },
        "data": {
            "samples": {
                "train": write(tmp_path / "train.jsonl", range(20)),
                "validation": write(tmp_path / "validation.jsonl", range(30, 38)),
                "ordinary": write(tmp_path / "ordinary.jsonl", range(40, 50)),
                "unseen": write(tmp_path / "unseen.jsonl", range(50, 54)),
            },
            "batch_size": 12,
        },
        "trainer": {"max_epochs": 6, "check_val_every_n_epoch": 3},
    }
    path = tmp_path / "reranker.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", "configs/reranker.yaml", "--config", str(path)]


def test_a_reranker_learns_to_pick_the_correct_sample(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", *arguments]) == 0
    run = tmp_path / "reranker"
    results = json.loads((run / "results.json").read_text())
    assert results["data"]["solutions"] == 120
    assert "training on 120 distinct solutions of 20 questions" in caplog.text
    assert results["fit"]["best"]["val/weighted"] > 0.8
    assert main(["test", *arguments]) == 0
    figures = json.loads((run / "results.json").read_text())["rerank"]
    assert set(figures) == {"ordinary", "unseen"}
    ordinary = figures["ordinary"]
    assert ordinary["questions"] == 10
    assert ordinary["rerank@6"][0] == pytest.approx(ordinary["pass@6"][0]), "the reranker picks a correct sample if one exists"
    assert ordinary["rerank@1"] == pytest.approx(ordinary["pass@1"])
    words = ", ".join(
        "{} {:.1%} (95%: {:.1%} to {:.1%})".format(label, *ordinary[f"{kind}@6"]) for kind, label in KINDS.items()
    )
    assert f"ordinary: 6 samples of 10 questions, {words}\n" in capsys.readouterr().out
    scores = [json.loads(line) for line in (run / "scores" / "ordinary.jsonl").read_text().splitlines()]
    assert len(scores) == 10
    assert all(len(row["scores"]) == 6 for row in scores)

    card = ModelCard.load(run / "hf" / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    assert {"Rerank@6", "Weighted@6", "Tie-break@6", "Voting@6", "Pass@6"} == {
        result.metric_name for result in card.data.eval_results
    }
    assert "120 different solutions to learn from" in card.text
    assert "An epoch took" not in card.text

    # The export is a plain classifier with the same scores.
    model = AutoModelForSequenceClassification.from_pretrained(run / "hf")
    assert model.config.id2label == {0: "wrong", 1: "correct"}
    tokenizer = AutoTokenizer.from_pretrained(run / "hf")
    first = json.loads((tmp_path / "ordinary.jsonl").read_text().splitlines()[0])
    text = f"Question:\n{first['question']}\nAnswer reasoning:\n{first['predictions'][0]['completion']}"
    logits = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits
    assert logits.softmax(-1)[0, 1].item() == pytest.approx(scores[0]["scores"][0], abs=1e-5)

    # A classifier folder of a run can be tested too.
    again = ["--ckpt_path", str(run / "hf"), "--run_dir", str(tmp_path / "again")]
    assert main(["test", *arguments, *again]) == 0
    (other,) = (tmp_path / "again").rglob("results.json")
    assert json.loads(other.read_text())["rerank"]["ordinary"]["rerank@6"] == ordinary["rerank@6"]


def test_evaluation_questions_are_left_out_of_training(
    arguments: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "unseen.jsonl", range(5))
    write(tmp_path / "ordinary.jsonl", range(36, 46))
    assert main(["fit", *arguments, "--trainer.max_epochs", "1"]) == 0
    assert "left out 5 of 20 questions that are evaluated on" in caplog.text
    assert "validation: left out 2 of 8 questions that are test questions" in caplog.text


@pytest.mark.parametrize(("limit", "taken"), [("3", 36), ("0.5", 60)])
def test_the_number_of_solutions_under_a_limit_is_logged(
    limit: str, taken: int, arguments: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", *arguments, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", limit]) == 0
    assert f"an epoch uses {taken} of them" in caplog.text
    results = json.loads((tmp_path / "reranker" / "results.json").read_text())
    assert (results["data"]["solutions"], results["data"]["solutions_an_epoch"]) == (120, taken)
    assert f"An epoch took {taken} of them." in (tmp_path / "reranker" / "hf" / "README.md").read_text()


@pytest.mark.slow
def test_a_run_stopped_by_steps_or_a_signal_resumes_bitwise(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "signal_at.py").write_text(SIGNAL_AT)
    monkeypatch.syspath_prepend(tmp_path)

    def fit(run: str, *more: str) -> int:
        constant = ["--model.schedule.kind", "constant", "--model.schedule.epochs", "null", "--model.schedule.warmup", "0"]
        return main(["fit", *arguments, *constant, "--run_dir", str(tmp_path / run), "--trainer.max_epochs", "2", *more])

    assert fit("whole") == 0
    assert fit("steps", "--trainer.max_steps", "3") == 0
    assert fit("steps") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "steps")
    callback = {"class_path": "signal_at.SignalAt", "init_args": {"hook": "on_train_batch_end", "n": 13}}
    assert fit("signal", "--trainer.callbacks", json.dumps([callback])) == 128 + signal.SIGTERM
    assert not (tmp_path / "signal" / "hf").exists()
    assert fit("signal") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "signal")


def test_samples_that_a_reranker_cannot_learn_from(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.jsonl").write_text(to_line(item(1, "www")))
    assert main(["fit", *arguments]) == 2
    assert "0 of 3 training solutions are correct" in capsys.readouterr().err
    (tmp_path / "train.jsonl").write_text(to_line(item(1, "rwn")) + to_line(item(2, "rw")))
    assert main(["fit", *arguments]) == 2
    assert "between 2 and 3 samples per question" in capsys.readouterr().err
    (tmp_path / "train.jsonl").unlink()
    assert main(["fit", *arguments]) == 2
    assert "reft-pl predict --config configs/sample.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, [1.0, 1.0, 1.0]),
        ({"count_duplicates": True}, [1.0, 3.0, 1.0]),
        # Correct ones have a mass of 2, wrong ones of 3: factors 5 / 4 and 5 / 6.
        ({"count_duplicates": True, "balance_classes": True}, [1.25, 2.5, 1.25]),
    ],
)
def test_pointwise_losses_sum_to_the_weighted_mean(micro_model: Path, settings: dict[str, Any], weights: list[float]) -> None:
    module, groups = module_with_stub(micro_model, **settings)
    logits = torch.tensor([[float(len(candidate.text)), 1.0] for group in groups for candidate in group])
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 0, 1]), reduction="none")
    expected = (torch.tensor(weights) * losses).sum() / sum(weights)
    one_by_one = [[candidate] for group in groups for candidate in group]
    assert sum(loss() for loss in module.losses(one_by_one)).item() == pytest.approx(expected.item())


def test_groupwise_losses_sum_to_the_mean_over_questions(micro_model: Path) -> None:
    module, (first, second) = module_with_stub(micro_model, loss="groupwise")
    second = [*second, Candidate(second[0].problem, "wrong", False)]
    margins = {len(c.text): 1.0 - len(c.text) for group in (first, second) for c in group}
    chances = []
    for group in (first, second):
        total = sum(math.exp(margins[len(c.text)]) for c in group)
        chances.append(sum(math.exp(margins[len(c.text)]) for c in group if c.correct) / total)
    losses = module.losses([first, second])
    assert len(losses) == 2, "each question is a micro-batch"
    assert sum(loss() for loss in losses).item() == pytest.approx(-sum(map(math.log, chances)) / 2)


def module_with_stub(micro_model: Path, **settings: Any) -> tuple[RerankerModule, list[list[Candidate]]]:
    """Build a module with a classifier of lengths, and two questions with three candidates."""
    first, second = Problem("a", "?", 1.0), Problem("b", "?", 1.0)
    groups = [[Candidate(first, "abc", True), Candidate(first, "a", False, 3)], [Candidate(second, "ab", True)]]
    module = RerankerModule(PolicySettings(str(micro_model)), micro_batch_tokens=5, **settings)
    module.__dict__["reranker"] = lambda sequences: torch.tensor([[float(len(s)), 1.0] for s in sequences])
    module.__dict__["sequences"] = lambda group: [[0] * len(candidate.text) for candidate in group]
    module._trainer = SimpleNamespace(world_size=1)
    module.weigh_classes([candidate for group in groups for candidate in group])
    return module, groups


@pytest.mark.parametrize("settings", [{"loss": "groupwise", "count_duplicates": True}, {"balance_classes": True}])
def test_every_loss_learns_to_rank(arguments: list[str], tmp_path: Path, settings: dict[str, Any]) -> None:
    options = [f"--model.{name}={str(value).lower()}" for name, value in settings.items()]
    assert main(["fit", *arguments, *options]) == 0
    results = json.loads((tmp_path / "reranker" / "results.json").read_text())
    assert results["fit"]["best"]["val/weighted"] > 0.8
    logged = read_curves(tmp_path / "reranker")
    assert logged["val/auc"].values[-1] > 0.9
    assert {"val/rerank", "val/tie_break", "val/calibration_error", "val/loss"} <= set(logged)


def test_a_groupwise_loss_needs_a_question_with_both(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.jsonl").write_text(to_line(item(1, "ww")) + to_line(item(2, "rr")))
    assert main(["fit", *arguments, "--model.loss=groupwise"]) == 2
    assert "no training question has both correct and wrong solutions" in capsys.readouterr().err


def test_a_groupwise_loss_has_no_classes_to_balance(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *arguments, "--model.loss=groupwise", "--model.balance_classes=true"]) == 2
    assert "model.balance_classes does not apply to a groupwise loss" in capsys.readouterr().err
