"""Hostile texts in every output for people: no control characters, no markup."""

from __future__ import annotations

import html
import io
import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from reft_pl_callbacks.progress_state import ProgressState, Stage
from reft_pl_callbacks.progress_views import LineView, TerminalView
from reft_pl_callbacks.sample_table import escape_markdown
from rich.console import Console

from reft_pl import escapes
from reft_pl.cli import main
from reft_pl.cli.quiet import CurrentStandardError
from reft_pl.commands.question_solver import Solution
from reft_pl.commands.solution_view import as_json, show
from reft_pl.errors import UserError
from reft_pl.evaluation.model_card import write_card
from reft_pl.formats import PythonProgram
from reft_pl.terminal import echo, escape_logs
from reft_pl.types import Completion, ExecutionResult, Problem, Sample, Status, StopReason

HOSTILE = {
    "clear": "a\x1b[2J\x1b[Hb",
    "title": "\x1b]0;title\x07x",
    "c1": "a\x9b31mb\x85c\x7f",
    "return": "right\rwrong\b\b",
    "bidi": "a\u202eb\u2066c\u2069\u200fd",
    "zero width": "a\u200bb\u200dc\ufeffd\u00ad",
    "separators": "a\u2028b\u2029c",
    "surrogate": "a\udcffb",
    "lines": "a\n# heading\n- item\n---\nb",
    "yaml": "mit\n---\nevil: true\n...\n: [x, {y",
    "rich": "[red]a[/red] [link=https://example.org]b[/link] [/]",
    "pipes": "a | b \\| c \\",
    "backticks": "`a` ``b`` ```c",
    "html": "<script>alert(1)</script><img src=x onerror=a> &lt; <!-- -->",
    "link": "[a](javascript:alert(1)) ![b](https://example.org/x.png) <https://example.org>",
    "emphasis": "*a* _b_ ~~c~~ **d**",
}
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
TAGS = {"html_inline", "html_block", "link_open", "image", "em_open", "strong_open", "s_open"}

pytestmark = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


def tokens_of(markdown: str) -> set[str]:
    """Return the token types of a Markdown parser with GitHub's rules."""
    parsed = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return {token.type for block in parsed for token in (block, *(block.children or ()))}


def test_a_terminal_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    echo(text)
    echo(text, error=True)
    for printed in capsys.readouterr():
        assert not STEERING.search(printed)
        assert printed.count("\n") == 1
    echo(text, lines=True)
    assert not STEERING.search(capsys.readouterr().out)


def test_markdown(text: str) -> None:
    cells = escapes.markdown_table(["a", escapes.markdown_text(text)], [[escapes.code_span(text), escapes.markdown_text(text)]])
    assert len(cells.splitlines()) == 3
    (row,) = [line for line in MarkdownIt("commonmark").enable("table").parse(cells) if line.type == "tbody_open"]
    assert row.map == [2, 3]
    parsed = MarkdownIt("commonmark").enable("table").parse(cells)
    assert sum(token.type == "td_open" for token in parsed) == sum(token.type == "th_open" for token in parsed) == 2
    for markdown in (cells, escapes.markdown_line(text), f"# {escapes.markdown_text(text)}", escapes.code_span(text)):
        assert not STEERING.search(markdown)
        assert not TAGS & tokens_of(markdown)
    assert tokens_of(escapes.markdown_line(text)) <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    assert [token.type for token in MarkdownIt().parse(escapes.fenced(text))] == ["fence"]


def test_html(text: str) -> None:
    shown = escapes.html_text(text)
    assert not STEERING.search(shown)
    assert not re.search("[<>\"']", shown)
    assert html.unescape(shown) == escapes.one_line(text)


def test_the_sample_table_of_tensorboard(text: str) -> None:
    cell = escape_markdown(text)
    assert not STEERING.search(html.unescape(cell))
    assert not re.search(r"[<>|`*\[\]_]", cell.replace("<br>", ""))
    assert "\n" not in cell


def test_progress(text: str) -> None:
    state = ProgressState(run=Stage(text, position=text, fraction=1.0), evaluation=Stage(text))
    state.read_figures({f"test/top1/{text}": 0.5})
    for make in (lambda console: LineView(state, console, 0), lambda console: TerminalView(state, console, 1)):
        stream = io.StringIO()
        console = Console(file=stream, width=1000, color_system=None)
        view = make(console)
        view.batch_end()
        view.evaluation_end(Stage(text))
        if isinstance(view, TerminalView):
            console.print(view.render())
        assert not STEERING.search(stream.getvalue())
        assert "  ".join(escapes.one_line(text).split()) in "  ".join(stream.getvalue().split())


def test_a_solution(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = ExecutionResult(Status.EXCEPTION, detail=text)
    completion = Completion("q", 0, (1,), (0.0,), StopReason.EOS)
    sample = Sample(Problem(text, text, None), completion, text, result)
    solution = Solution((sample,))
    show(solution, PythonProgram(), with_question=True)
    print(as_json(solution, PythonProgram()))
    printed = capsys.readouterr().out
    assert not STEERING.search(printed)
    assert f"status: exception ({escapes.one_line(text)})" in printed


def test_logs_warnings_and_errors(text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    escape_logs()
    logger = logging.getLogger("stranger")  # apart from the handlers that other tests leave on reft_pl's
    logger.propagate = False
    logger.addHandler(handler := CurrentStandardError())
    logger.warning("%s has the status %s", text, text)
    logger.removeHandler(handler)
    assert capsys.readouterr().err.count("\n") == 1
    shown = warnings.formatwarning(UserWarning(text), UserWarning, "file.py", 1, "")
    assert not STEERING.search(shown)

    def fail(*_: Any) -> int:
        raise UserError(f"{text} is not a number")

    monkeypatch.setattr("reft_pl.cli._run", fail)
    assert main(["solve"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert not STEERING.search(printed)


@pytest.fixture
def run_dir(text: str, tmp_path: Path) -> Path:
    """A run with ``text`` in every name, as far as file names allow it."""
    name = text.replace("/", "").encode("utf-8", "replace").decode()
    run = tmp_path / name
    for part in ("predictions", "hf"):
        (run / part).mkdir(parents=True)
    rows = [
        {"item_id": text, "question": text, "response": text, "status": text, "answer": text, "gold": text, "correct": True}
    ]
    (run / "predictions" / f"{name}.jsonl").write_text(json.dumps(rows[0]) + "\n")
    test = {name: {"top1": 1.0, "n": 1, "interval95": [0.5, 1.0]}}
    (run / "results.json").write_text(json.dumps({"test": test}))
    source = {"class_path": f"reft_pl.{text}", "init_args": {"path": text}}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"train": [source], "test": {name: source}, "holdout": text}}))
    description = {
        "stage": text,
        "base": text,
        "inherited": {"license": text, "base_model": [text, text], "license_link": {"a": text}},
        "max_prompt_tokens": 300,
        "max_tokens": 400,
        "format": source,
        "example": {"question": text, "prompt": text},
    }
    (run / "hf" / "reft.json").write_text(json.dumps(description))
    return run


def test_compare_report_and_card(
    text: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "before"
    (other / "predictions").mkdir(parents=True)
    for path in (run_dir / "predictions").iterdir():
        (other / "predictions" / path.name).write_text(path.read_text().replace("true", "false"))
    pattern = "".join(f"[{c}]" if c in "*?[" else c for c in run_dir.name)
    assert main(["compare", "before", pattern, "--examples", "1"]) == 0
    assert main(["compare", "before", pattern, "--markdown"]) == 0
    assert main(["report", run_dir.name]) == 0
    printed = capsys.readouterr()
    assert not STEERING.search(printed.out)
    assert not STEERING.search(printed.err)

    report = (tmp_path / "report" / "report.md").read_text()
    assert not STEERING.search(report)
    assert not TAGS & tokens_of(report)
    page = (tmp_path / "report" / "report.html").read_text()
    assert not STEERING.search(re.sub("<script.*?</script>", "", page, flags=re.DOTALL))

    write_card(run_dir)
    card = (run_dir / "hf" / "README.md").read_text()
    assert not STEERING.search(card)
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert "evil" not in metadata
    assert escapes.one_line(metadata["license"]) == metadata["license"]
    assert not (TAGS - {"link_open"}) & tokens_of(body)
    assert ModelCard.load(run_dir / "hf" / "README.md").data.license == metadata["license"]
