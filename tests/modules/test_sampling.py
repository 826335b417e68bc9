import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import yaml

from reft_pl.cli import main
from reft_pl.data.sample_file import read_samples
from reft_pl.evaluation.report.runs import read_runs
from reft_pl.evaluation.sample_store import SampleStore
from tests.modules.stops import SIGNAL_AT

Overlay = Callable[..., str]
COMMAND = [sys.executable, "-c", "import sys; from reft_pl.cli import main; sys.exit(main())"]


def stories(split: str, size: int) -> dict[str, object]:
    return {"class_path": "StorySource", "init_args": {"split": split, "size": size}}


@pytest.fixture
def predict(overlay: Overlay, micro_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of ``predict`` for a tiny model after a short SFT."""
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
    """Format a figure of results.json as the command prints it."""
    share, low, high = json.loads((run / "results.json").read_text())["samples"]["ordinary"][name]
    return f"{share:.1%} (95%: {low:.1%} to {high:.1%})"


def test_n_executed_samples_per_question_in_the_authors_format(
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

    # The authors' list beside each file says the same, and is not another set of samples to any reader.
    rows = json.loads((tmp_path / "sft" / "samples" / "ordinary.json").read_text())
    assert rows[0]["predictions"][0].keys() == {"completion", "solving_res", "correctness"}
    listed = read_samples(tmp_path / "sft" / "samples" / "ordinary.json")
    assert [(i.id, i.question, i.gold, i.verdicts) for i in listed] == [(i.id, i.question, i.gold, i.verdicts) for i in items]
    (run,) = read_runs([tmp_path / "sft"])
    assert [path.name for path in run.sample_files] == ["ordinary.jsonl", "unseen.jsonl"]


@pytest.mark.slow
def test_training_and_validation_questions_can_be_sampled(predict: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main([*predict("sft"), "--data.predict", "[train,validation]"]) == 0
    counts = {path.stem: len(read_samples(path)) for path in (tmp_path / "sft" / "samples").glob("*.jsonl")}
    assert counts == {"train": 12, "validation": 4}


def test_a_finished_file_is_kept_and_other_settings_are_refused(
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


@pytest.mark.slow
def test_a_file_that_another_process_finishes_first(
    predict: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*predict("sft", predict=["unseen"]), "--model.n", "1"]
    assert main(command) == 0
    file, results = tmp_path / "sft" / "samples" / "unseen.jsonl", tmp_path / "sft" / "results.json"
    whole = file.read_bytes()
    figures = json.loads(results.read_text())
    del figures["samples"]
    results.write_text(json.dumps(figures))
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    monkeypatch.setattr(SampleStore, "claim", lambda store, batch: nullcontext(False))
    # Between the end of sampling and the printed summary.
    monkeypatch.setattr("reft_pl.cli.lightning_cli.write_card", lambda folder: file.write_bytes(whole))
    capsys.readouterr()
    assert main(command) == 0
    assert "unseen: not all questions are sampled yet; wait for the other processes" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [("unseen", ["--data.test.unseen.split", "test"]), ("validation", ["--data.holdout_seed", "2"])],
    ids=["another split", "other questions held out"],
)
def test_other_questions_under_the_same_name_are_refused(
    name: str, change: list[str], predict: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = {"validation": None, "holdout": 4} if name == "validation" else {}
    command = [*predict("sft", predict=[name], **held_out), "--model.n", "1"]
    assert main(command) == 0
    before = (tmp_path / "sft" / "samples" / f"{name}.jsonl").read_bytes()
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, *change]) == 2
    *warnings, sentence = capsys.readouterr().err.splitlines()
    assert sentence.startswith("reft-pl predict: ")
    assert f"{name}.jsonl was begun with other settings (questions_digest: '" in sentence
    assert not any("Traceback" in warning for warning in warnings)
    assert (tmp_path / "sft" / "samples" / f"{name}.jsonl").read_bytes() == before


def test_predict_needs_a_model_and_the_sampling_config(
    predict: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], overlay: Overlay
) -> None:
    assert main(predict("nothing")) == 2
    assert "run `reft-pl fit` there first" in capsys.readouterr().err
    assert main(["predict", "--config", "configs/sft.yaml", "--config", overlay("sft")]) == 2
    assert "give `reft-pl predict` configs/sample.yaml" in capsys.readouterr().err
    assert main(["fit", *predict("nothing")[1:]]) == 2
    assert "SamplingModule is not trained" in capsys.readouterr().err


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def is_longer(file: Path, lines: int) -> bool:
    return lines_of(file) > lines


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 300) -> bool:
    """Wait for a condition while the process lives; return whether it became true. Fail the test on timeout."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return condition()
        if time.monotonic() > end:
            pytest.fail(f"nothing happened in {seconds} seconds")
        time.sleep(0.005)
    return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Start processes that do not outlive the test; print their output if the test fails."""
    started: list[subprocess.Popen[bytes]] = []
    output = tmp_path / "output.txt"

    def run(command: list[str]) -> subprocess.Popen[bytes]:
        with output.open("ab") as file:
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait(30)
    print(output.read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)  # ten processes start one after the other, and every wait below has a separate limit
def test_kills_and_several_processes_give_the_same_bytes(
    predict: Callable[..., list[str]], tmp_path: Path, start: Callable[[list[str]], subprocess.Popen[bytes]]
) -> None:
    """kill -9 at five random moments of sampling, then two processes at once.

    A moment is drawn once the process samples: at first when the store is there, later when the file has grown since the
    start. Five lives last three batches of 30 at most: none of them reaches the end.
    """
    questions = 60
    model = ["--ckpt_path", str(tmp_path / "sft" / "hf"), "--data.predict", "[train]", "--model.n", "4"]
    command = [*COMMAND, *predict("whole", train=[stories("train", questions)]), *model]
    folder = Path("tests") / str(tmp_path / "sft" / "hf").strip("/").replace("/", "--") / "samples"
    whole = tmp_path / "whole" / folder / "train.jsonl"
    process = start(command)
    assert wait_until(lambda: lines_of(whole) > 0, process)
    first = time.monotonic()
    assert wait_until(lambda: lines_of(whole) == questions, process)
    seconds_a_batch = (time.monotonic() - first) / (questions / 2 - 1)
    assert process.wait(300) == 0

    seed = random.SystemRandom().randrange(2**32)
    print(f"moments drawn with seed {seed}; a batch takes {seconds_a_batch:.3f} s")
    moments = random.Random(seed)
    command = [*COMMAND, *predict("killed", train=[stories("train", questions)]), *model]
    killed = tmp_path / "killed" / folder / "train.jsonl"
    left: list[int] = []  # lines of the file after each kill of a process that was sampling
    for _ in range(8):
        before, process = lines_of(killed), start(command)
        begun = partial(is_longer, killed, before) if left else killed.with_name(".train.parts").exists
        if wait_until(begun, process):
            moment = time.monotonic() + moments.uniform(0, 2) * seconds_a_batch
            # Where the machine has more time for it now than for the run that was measured, three batches are enough.
            wait_until(lambda: time.monotonic() >= moment or lines_of(killed) >= before + 6, process)  # noqa: B023
            process.kill()
            if process.wait(30) == -signal.SIGKILL and lines_of(killed) < questions:
                left.append(lines_of(killed))
        if len(left) == 5:
            break
    print(f"lines after each kill: {left}")
    assert len(left) == 5, "so many processes were killed while they sampled"
    assert len({lines for lines in left if 0 < lines < questions}) >= 3, "kills fell between batches of a file half done"

    both = [start(command) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert start(command).wait(300) == 0  # what one left to the other is there now
    assert killed.read_bytes() == whole.read_bytes()
    assert killed.with_suffix(".json").read_bytes() == whole.with_suffix(".json").read_bytes()
    assert len(read_samples(killed)) == questions


@pytest.mark.slow
def test_a_signal_stops_sampling_between_batches_and_repeats_nothing(
    predict: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "signal_at.py").write_text(SIGNAL_AT)
    monkeypatch.syspath_prepend(tmp_path)
    ckpt = ["--ckpt_path", str(tmp_path / "sft" / "hf"), "--data.predict", "[ordinary]"]
    folder = Path("tests") / str(tmp_path / "sft" / "hf").strip("/").replace("/", "--") / "samples"
    stopped, whole = (tmp_path / run / folder / "ordinary.jsonl" for run in ("stopped", "whole"))
    callback = {"class_path": "signal_at.SignalAt", "init_args": {"hook": "on_predict_batch_start", "n": 3}}
    command = [*predict("stopped"), *ckpt]
    assert main([*command, "--trainer.callbacks", json.dumps([callback])]) == 128 + signal.SIGTERM
    reported = capsys.readouterr().err.strip().splitlines()[-1]
    assert reported.startswith("reft-pl predict: stopped by SIGTERM; "), reported
    assert 0 < lines_of(stopped) < 7
    assert main(command) == main([*predict("whole"), *ckpt]) == 0
    assert stopped.read_bytes() == whole.read_bytes()
