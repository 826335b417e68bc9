"""SampleTable: the lines of the file, no duplicates or gaps after a kill, and the table in TensorBoard."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from reft_pl_callbacks import SampleTable
from reft_pl_callbacks.sample_table import escape_markdown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html


def test_one_line_per_sample(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    make_trainer(SampleTable()).fit(tiny_module(sequences=2), loader)
    records = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").open(encoding="utf-8")]
    assert [(record["step"], record["id"]) for record in records] == [(s, f"p{s}-{i}") for s in range(8) for i in range(2)]
    text = records[1].pop("text")
    assert text.startswith("def solution():\n")
    assert records[1] == {
        "step": 0,
        "id": "p0-1",
        "question": "How many? “1”",
        "status": "timeout",
        "backend": "",
        "value": None,
        "gold": 1.0,
        "reward": 0.1,
        "stop": "eos",
        "tokens": 2,
    }


MOMENTS = [(0, "score"), (1, "update"), (2, "rollout"), (3, "update"), (5, "update"), (7, "update")]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_and_resumed_run_has_no_duplicates_or_gaps(
    make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path, moment: tuple[int, str]
) -> None:
    """Checkpoints every second batch; the interruption leaves lines after the last checkpoint, one of them incomplete."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    make_trainer(SampleTable(), default_root_dir=whole).fit(tiny_module(), loader)

    def kill(step: int, at: str) -> None:
        if (step, at) == moment:
            raise SystemError("killed")

    def trainer() -> Any:
        checkpoints = ModelCheckpoint(killed, save_last=True, every_n_train_steps=2)
        return make_trainer(SampleTable(), checkpoints, enable_checkpointing=True, default_root_dir=killed)

    with pytest.raises(SystemError):
        trainer().fit(tiny_module(at_phase=kill), loader)
    with (killed / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 9, "id": "torn')
    last = killed / "last.ckpt"
    trainer().fit(tiny_module(), loader, ckpt_path=last if last.exists() else None)
    assert (killed / "rollouts.jsonl").read_bytes() == (whole / "rollouts.jsonl").read_bytes()


def test_a_new_run_renames_an_older_file(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    (tmp_path / "rollouts.jsonl").write_text("precious\n")
    make_trainer(SampleTable(), max_epochs=1).fit(tiny_module(), loader)
    assert (tmp_path / "rollouts.jsonl.old").read_text() == "precious\n"
    assert len((tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()) == 16


def test_a_missing_file_is_logged(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    table = SampleTable()
    table.load_state_dict({"length": 10_000})
    with pytest.warns(UserWarning, match="lacks samples from before this resume"):
        make_trainer(table, max_epochs=1).fit(tiny_module(), loader)
    assert len((tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()) == 16


def test_tables_in_tensorboard(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    make_trainer(SampleTable(every_n=3, rows=2), logger=logger).fit(tiny_module(), loader)
    events = EventAccumulator(str(tmp_path)).Reload()
    tables = events.Tensors("rollout/samples/text_summary")
    assert [event.step for event in tables] == [0, 3, 6]
    html = markdown_to_safe_html(tables[1].tensor_proto.string_val[0].decode())
    assert html.count("<tr>") == 1 + 2
    assert html.count("<td>") == 6 * 2
    assert "timeout" in html
    assert "<b>" not in html
    assert "<em>" not in html


@pytest.mark.parametrize(
    "text", ["a | b", "<script>x</script>", "**bold** _it_ `code`", "# head", "[l](u)", "1. x", "- y", "&lt;"]
)
def test_text_is_shown_unchanged(text: str) -> None:
    """The browser decodes the cell to the original text."""
    from html import unescape

    html = markdown_to_safe_html(f"| a |\n|---|\n| {escape_markdown(text)} |\n")
    cell = html.split("<td>")[1].split("</td>")[0]
    assert "<" not in cell
    assert unescape(cell) == text


def test_lines_and_indents_are_kept() -> None:
    assert escape_markdown("a\n    b\n\tc") == "a<br>&nbsp;&nbsp;&nbsp;&nbsp;b<br>&nbsp;&nbsp;&nbsp;&nbsp;c"
