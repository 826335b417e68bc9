import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from reft_pl.cli import main
from reft_pl.data.sample_file import read_samples

Overlay = Callable[..., str]
COMMAND = [sys.executable, "-c", "import sys; from reft_pl.cli import main; sys.exit(main())"]


def stories(split: str, size: int) -> dict[str, object]:
    return {"class_path": "StorySource", "init_args": {"split": split, "size": size}}


@pytest.fixture
def predict(overlay: Overlay, micro_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The arguments of ``predict`` for a model of a few thousand weights, fresh from a moment of SFT."""
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0

    def arguments(run: str, **data: object) -> list[str]:
        config = {
            "run_dir": str(tmp_path / run),
            "model": {"init_args": {"n": 3}},
            "data": {
                "train": [stories("train", 12)],
                "validation": [stories("validation", 4)],
                "test": {"ordinary": stories("test", 7), "unseen": stories("unseen", 4)},
                "eval_batch_size": 2,
                "max_tokens": 230,
                "max_prompt_tokens": 190,
                "cache_dir": str(tmp_path / "cache"),
                **data,
            },
        }
        path = tmp_path / f"{run}-predict.yaml"
        path.write_text(yaml.safe_dump(config))
        return ["predict", "--config", "configs/sample.yaml", "--config", str(path)]

    return arguments


def in_words(run: Path, name: str) -> str:
    """A figure of results.json as it is printed."""
    share, low, high = json.loads((run / "results.json").read_text())["samples"]["ordinary"][name]
    return f"{share:.1%} (95%: {low:.1%} to {high:.1%})"


def test_n_executed_samples_a_question_in_the_authors_form(
    predict: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(predict("sft")) == 0
    voting, bound = (in_words(tmp_path / "sft", f"{kind}@3") for kind in ("voting", "pass"))
    assert f"ordinary: 3 samples of 7 questions, voting@3 {voting}, upper bound {bound}\n" in capsys.readouterr().out
    items = read_samples(tmp_path / "sft" / "samples" / "ordinary.jsonl")
    assert len({item.id for item in items}) == len(items) == 7
    assert all(len(item.predictions) == 3 for item in items)
    assert len({p.text for item in items for p in item.predictions}) > 14, "samples of a question differ"
    rows = [json.loads(line) for line in (tmp_path / "sft" / "samples" / "ordinary.jsonl").read_text().splitlines()]
    assert rows[0]["predictions"][0].keys() >= {"completion", "solving_res", "correctness"}
    assert rows[0].keys() >= {"item_id", "question", "answer_value", "most_voted_answer", "is_correct"}
    figures = json.loads((tmp_path / "sft" / "results.json").read_text())["samples"]
    assert set(figures) == {"ordinary", "unseen"}
    assert figures["ordinary"]["questions"] == 7
    assert figures["ordinary"].keys() >= {"voting@1", "voting@2", "voting@3", "pass@1", "pass@2", "pass@3"}
    assert not list((tmp_path / "sft" / "samples").glob(".*.parts"))


def test_training_and_validation_questions_can_be_sampled(predict: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main([*predict("sft"), "--data.predict", "[train,validation]"]) == 0
    counts = {path.stem: len(read_samples(path)) for path in (tmp_path / "sft" / "samples").glob("*.jsonl")}
    assert counts == {"train": 12, "validation": 4}


def test_a_finished_file_is_left_alone_and_other_settings_are_refused(
    predict: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = predict("sft", predict=["unseen"])
    assert main(command) == 0
    file = tmp_path / "sft" / "samples" / "unseen.jsonl"
    before = file.stat().st_mtime_ns
    assert main(command) == 0
    assert file.stat().st_mtime_ns == before
    capsys.readouterr()
    assert main([*command, "--model.n", "2"]) == 2
    assert "was begun with other settings (n: 3 there, 2 here)" in capsys.readouterr().err


def test_predict_wants_a_model_and_the_sampling_config(
    predict: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], overlay: Overlay
) -> None:
    assert main(predict("nothing")) == 2
    assert "run `reft-pl fit` there first" in capsys.readouterr().err
    assert main(["predict", "--config", "configs/sft.yaml", "--config", overlay("sft")]) == 2
    assert "give `reft-pl predict` configs/sample.yaml" in capsys.readouterr().err
    assert main(["fit", *predict("nothing")[1:]]) == 2
    assert "SamplingModule is not trained" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_shared_the_file_is_the_same_to_the_byte(predict: Callable[..., list[str]], tmp_path: Path) -> None:
    """kill -9 five times at random moments, then two processes at once."""
    model = ["--ckpt_path", str(tmp_path / "sft" / "hf"), "--data.predict", "[train]", "--model.n", "8"]
    start = time.monotonic()
    subprocess.run([*COMMAND, *predict("whole"), *model], check=True, capture_output=True)
    seconds = time.monotonic() - start
    (whole,) = (tmp_path / "whole").rglob("train.jsonl")
    seed = random.SystemRandom().randrange(2**32)
    print(f"moments drawn with seed {seed}")
    moments = random.Random(seed)
    command = [*COMMAND, *predict("killed"), *model]
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.3, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    subprocess.run(command, check=True, capture_output=True)  # what one left to the other is there now
    (killed,) = (tmp_path / "killed").rglob("train.jsonl")
    assert killed.read_bytes() == whole.read_bytes()
    assert len(read_samples(killed)) == 12
