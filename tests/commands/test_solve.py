"""`reft-pl solve` on a model of a few thousand weights: on the command line, from a pipe, and on a terminal."""

import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reft_pl.cli import main
from reft_pl.commands.question_solver import Solution
from reft_pl.commands.solution_view import as_json, show
from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.evaluation.files import read_predictions
from reft_pl.formats import NaturalLanguage, PythonProgram
from reft_pl.models.classifier import load_classifier
from reft_pl.models.reranker import Reranker, export_reranker
from reft_pl.types import Answer, Completion, ExecutionResult, Problem, Sample, Status, StopReason

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"
GIVEN = f'def solution():\n    """{QUESTION}"""\n'


@pytest.fixture
def run(overlay: Callable[..., str], tmp_path: Path) -> Path:
    """A trained and tested run."""
    command = ["--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(["fit", *command]) == main(["test", *command]) == 0
    return tmp_path / "sft"


def solve(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert main(["solve", *map(str, args)]) == 0
    return capsys.readouterr().out


def test_greedy_decoding_equals_that_of_top1(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = read_predictions(run / "predictions" / "ordinary.jsonl")[0]
    solved = json.loads(solve(capsys, run, row["question"], "--json"))
    assert solved["response"] == row["response"]
    assert solved["status"] == row["status"]
    assert solved["samples"] == 1
    assert sum(solved["statuses"].values()) == 1


def test_a_reranker_weights_the_votes(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer(str(exported))
    codec = Codec(tokenizer, PythonProgram(), 100, 120)
    classifier = Reranker(load_classifier(str(exported), torch.float32, seed=1))
    export_reranker(classifier, tokenizer, tmp_path / "reranker", {"stage": "reranker", **codec.description()})
    row = json.loads(solve(capsys, exported, QUESTION, "--samples", 4, "--reranker", tmp_path / "reranker", "--json"))
    assert all(0 < vote["score"] < vote["count"] for vote in row["votes"])
    assert row["votes"] == sorted(row["votes"], key=lambda vote: -vote["score"])
    assert main(["solve", str(exported), QUESTION, "--samples", "4", "--reranker", str(exported)]) == 2
    assert f"--reranker {exported} is not a reranker" in capsys.readouterr().err
    assert main(["solve", str(exported), QUESTION, "--reranker", str(tmp_path / "reranker")]) == 2
    assert "--reranker chooses among several samples: add --samples K" in capsys.readouterr().err


def test_questions_from_a_pipe_are_answered_line_by_line(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n\nWhat is 2 plus 2?\n{QUESTION}\n"))
    rows = [json.loads(line) for line in solve(capsys, exported, "--json", "--samples", 3).splitlines()]
    assert [row["question"] for row in rows] == [QUESTION, "What is 2 plus 2?", QUESTION]
    assert rows[0] == rows[2]
    assert rows[0]["samples"] == sum(rows[0]["statuses"].values()) == 3
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n"))
    printed = solve(capsys, exported)
    assert printed.startswith(f"question: {QUESTION}\n\n{GIVEN.rstrip()}")


def test_any_model_folder_answers_in_any_format(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = json.loads(solve(capsys, exported, QUESTION, "--json"))
    foreign = tmp_path / "foreign"
    shutil.copytree(exported, foreign)
    (foreign / "reft.json").unlink()
    assert json.loads(solve(capsys, foreign, QUESTION, "--json", "--max_tokens", 120)) == own
    plain = json.loads(solve(capsys, foreign, QUESTION, "--json", "--format", "NaturalLanguage", "--max_tokens", 60))
    assert plain["program"] is None
    assert main(["solve", str(exported), QUESTION, "--format", "NaturalLanguage", "--max_tokens", "60"]) == 0
    assert "will be prompted with {'class_path': 'reft_pl.formats.NaturalLanguage'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--samples", "0"], "--samples is 0, but must be at least 1"),
        (["--temperature", "nan"], "--temperature is nan, but must be a number of at least 0"),
        (["--top_k", "-1"], "--top_k is -1, but must be at least 0"),
        (["--max_tokens", "1"], "--max_tokens is 1, but prompt and solution need at least 2"),
        (["--max_tokens", "9999"], "has 512 positions: lower it"),
        (["--max_tokens", "12"], "and this model takes 11: shorten it"),
        (["--format", "Prose"], "the format 'Prose' is not built into reft-pl"),
        (["--format", "Chat"], "has no chat template"),
    ],
)
def test_a_user_error_is_one_sentence(
    args: list[str], sentence: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", str(exported), QUESTION, *args]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["runs/none/hf", QUESTION], "there is no model at runs/none/hf: train the stage that it comes from first"),
        (["somewhere", "  "], "the question is empty"),
        ([str(Path(__file__).parent), QUESTION], "holds no config.json"),
    ],
    ids=["no model", "no question", "no model in it"],
)
def test_a_missing_question_or_model_is_one_sentence(
    args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", *args]) == 2
    assert sentence in capsys.readouterr().err


def test_questions_that_are_not_text(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["solve", str(exported), "wie gro\udcdf?"]) == 2
    assert "a question is not UTF-8" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"wie gro\xdf?\n"), encoding="utf-8"))
    assert main(["solve", str(exported)]) == 2
    assert "a question is not UTF-8" in capsys.readouterr().err


def test_ctrl_c_ends_quietly(exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.StringIO):
        def __next__(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    assert main(["solve", str(exported)]) == 130
    assert capsys.readouterr().err.strip() == ""


# ---- what is printed, for solutions made by hand


def solution(*results: tuple[str, Answer | Status], question: str = QUESTION) -> Solution:
    samples = []
    for index, (body, outcome) in enumerate(results):
        failed = isinstance(outcome, Status)
        result = ExecutionResult(outcome, detail="ZeroDivisionError") if failed else ExecutionResult(Status.OK, outcome)
        completion = Completion("0:question", index, (2,), (-0.1,), StopReason.EOS)
        text = f'def solution():\n    """{question}"""\n    {body}\n'
        samples.append(Sample(Problem("question", question, None), completion, text, result))
    return Solution(tuple(samples))


VOTED = (("return 1 / 0", Status.EXCEPTION), ("return 3", 3.0), ("return 3 + 4", 7.0), ("return 7\n\nafter", 7))


def test_one_solution_as_plain_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    show(solution(("return 7\n\nprint('after the program')", 7.0)), PythonProgram(), with_question=False)
    assert capsys.readouterr().out == f"{GIVEN}    return 7\n\nanswer: 7\nstatus: ok\n"
    show(solution(("return 1 / 0", Status.EXCEPTION)), PythonProgram(), with_question=False)
    assert capsys.readouterr().out.endswith("\n\nanswer: none\nstatus: exception (ZeroDivisionError)\n")


def test_a_vote_as_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(solution(*VOTED), PythonProgram(), with_question=False)
    vote = "answer: 7 (2 of 4 samples)\nstatus: ok\nvotes:\n     2  7\n     1  3\n     1  no answer: exception\n"
    assert capsys.readouterr().out == f"{GIVEN}    return 3 + 4\n\n{vote}"


def test_a_vote_as_json() -> None:
    line = as_json(solution(*VOTED), PythonProgram())
    assert json.loads(line) == {
        "question": QUESTION,
        "answer": 7,
        "status": "ok",
        "detail": "",
        "program": f"{GIVEN}    return 3 + 4\n",
        "response": f"{GIVEN}    return 3 + 4\n",
        "samples": 4,
        "votes": [{"answer": 7, "count": 2}, {"answer": 3, "count": 1}],
        "statuses": {"exception": 1, "ok": 3},
    }


HOSTILE = solution(("x = '\x1b]0;title\x07\x1b[2J'\r\u202e", Status.EXCEPTION), question="who\x9b?")


def test_control_characters_do_not_reach_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show(HOSTILE, PythonProgram(), with_question=True)
    show(HOSTILE, NaturalLanguage(), with_question=True)
    print(as_json(HOSTILE, PythonProgram()))
    printed = capsys.readouterr().out
    assert set(printed) - set("\n") == {c for c in printed if c.isprintable()}
    assert r"x = '\x1b]0;title\x07\x1b[2J'" in printed


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> str:
    """Return what ``action`` prints on a terminal."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        action()
        terminal.flush()
        printed = os.read(ours, 65536).decode()
    os.close(ours)
    return printed.replace("\r\n", "\n")


def test_a_terminal_gets_colours_but_no_control_characters_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = on_a_terminal(monkeypatch, lambda: show(HOSTILE, PythonProgram(), with_question=True))
    sequences = [part.partition("m")[0] for part in printed.split("\x1b[")[1:]]
    assert sequences
    assert all(set(sequence) <= set("0123456789;") for sequence in sequences), "colours and styles alone"
    assert printed.count("\x1b") == len(sequences)
    assert not {"\x07", "\r", "\u202e", "\x9b"} & set(printed)


def test_terminal_lines_are_not_padded_or_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "return " + " + ".join("1" * 60)
    printed = on_a_terminal(monkeypatch, lambda: show(solution((long, 60.0)), PythonProgram(), with_question=False))
    for code in {part.partition("m")[0] for part in printed.split("\x1b[")[1:]}:
        printed = printed.replace(f"\x1b[{code}m", "")
    assert f"    {long}\n\nanswer: 60\n" in printed


@pytest.mark.slow
def test_an_interactive_session(exported: Path) -> None:
    """Ask a question and one that is too long; then end with Ctrl-C, Ctrl-D, or an empty line."""
    code = "import sys; from reft_pl.cli import main; sys.exit(main())"
    for end, exit_code in (("\x03", 130), ("\x04", 0), ("\n", 0)):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(sys.executable, [sys.executable, "-c", code, "solve", str(exported)])
        try:
            read_until(terminal, "question> ")
            os.write(terminal, f"{QUESTION}\n".encode())
            printed = read_until(terminal, "question> ")
            assert "status: " in printed
            os.write(terminal, f"{QUESTION * 6}\n".encode())
            assert "shorten it" in read_until(terminal, "question> ")
            rest, status = ended_by(end, pid, terminal)
            assert "Traceback" not in rest
            assert os.waitstatus_to_exitcode(status) == exit_code
        finally:
            os.close(terminal)


def ended_by(key: str, pid: int, terminal: int) -> tuple[str, int]:
    """Press a key until the program ends, because the line editor loses keys during its start."""
    rest = ""
    for _ in range(12):
        os.write(terminal, key.encode())
        rest += read_until(terminal, None, seconds=5)
        for _ in range(50):  # between the end of its output and its own
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return rest, status
            time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"{key!r} did not end it: {rest}")


def read_until(terminal: int, what: str | None, seconds: float = 120) -> str:
    """Read from a terminal up to ``what``, or to its end."""
    printed, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline and (what is None or what not in printed):
        if select.select([terminal], [], [], 1)[0]:
            try:
                data = os.read(terminal, 4096)
            except OSError:  # the other side is closed
                data = b""
            if not data:
                break
            printed += data.decode(errors="replace")
    assert what is None or what in printed
    return printed


@pytest.mark.slow
def test_ctrl_c_during_sampling_and_a_closed_pipe(exported: Path) -> None:
    code = "import sys; from reft_pl.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "solve", str(exported), "--json"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(f"{QUESTION}\n".encode() * 200)
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.stdin.close()
    assert process.wait(60) == 130
    assert process.stderr.read().strip() == b""
    piped = f"yes '{QUESTION}' | {' '.join(map(repr, command))} | head -1 | wc -l; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
    assert done.stderr == ""
