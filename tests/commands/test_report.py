import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reft_pl.cli import main
from tests.commands.signalled import stopped


def test_the_table_and_the_path_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "sft"
    run.mkdir(parents=True)
    test = {"ordinary": {"top1": 0.25, "n": 40, "interval95": [0.142, 0.402]}}
    (run / "results.json").write_text(json.dumps({"test": test}))
    assert main(["report", "runs/sft"]) == 0
    printed = capsys.readouterr().out
    assert "| sft | 25.0% (14.2 to 40.2) |" in printed
    assert printed.endswith("\nreport/report.html\n")
    assert "<td>25.0% <small>(14.2 to 40.2)</small></td>" in Path("report/report.html").read_text()
    assert Path("report/report.md").read_text() in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "signum"), [("reft_pl.evaluation.report.write.page", signal.SIGTERM), ("os.replace", signal.SIGINT)]
)
def test_a_signal_keeps_the_former_report(where: str, signum: signal.Signals, tmp_path: Path) -> None:
    run, report = tmp_path / "sft", tmp_path / "report"
    for folder in (run, report):
        folder.mkdir()
    (run / "results.json").write_text(json.dumps({"test": {"a": {"top1": 0.25, "n": 40, "interval95": [0.142, 0.402]}}}))
    former = {"report.md": "former", "report.html": "former"}
    for name, text in former.items():
        (report / name).write_text(text)
    stopped(where, signum, "report", "sft", cwd=tmp_path)
    assert {file.name: file.read_text() for file in report.iterdir()} == former


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "holds nothing to report" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "there is no run folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_of_real_runs(overlay: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SFT, PPO from it, its samples, and an untrained reranker of them."""

    def reft_pl(verb: str, config: str, changes: str | dict[str, Any], *options: str) -> None:
        if isinstance(changes, dict):
            path = tmp_path / f"{verb}-{config}.yaml"
            path.write_text(yaml.safe_dump(changes))
            changes = str(path)
        assert main([verb, "--config", f"configs/{config}.yaml", "--config", changes, *options]) == 0

    brief: dict[str, Any] = {"trainer": {"max_epochs": 1}}
    sft, ppo, ranker = tmp_path / "sft", tmp_path / "ppo", tmp_path / "ranker"
    reft_pl("fit", "sft", overlay("sft", **brief))
    reft_pl("test", "sft", overlay("sft", **brief))
    reft_pl("fit", "ppo", overlay("ppo", sft / "hf", **brief))
    data = yaml.safe_load(Path(overlay("ppo", sft / "hf", **brief)).read_text())["data"]
    sizes = {name: data[name] for name in ("max_tokens", "max_prompt_tokens")}
    policy = {"init_from": str(ppo / "hf")}
    sampling = {"init_args": {"policy": policy, "n": 4}}
    reft_pl("predict", "sample", {"run_dir": str(ppo), "model": sampling, "data": {**sizes, "test": data["test"]}})
    samples = {name: str(ppo / "samples" / f"{name}.jsonl") for name in data["test"]}
    changes = {"run_dir": str(ranker), "model": {"init_args": {"policy": policy}}, "data": {**sizes, "samples": samples}}
    reft_pl("test", "reranker", changes, "--ckpt_path", str(ppo / "hf"))
    capsys.readouterr()

    (ranked,) = ranker.rglob("results.json")
    assert main(["report", *map(str, (sft, ppo, ranked.parent)), "--output", str(tmp_path / "report")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "### ordinary (4 questions)"
    assert lines[2] == "| run | Top-1 | Voting@4 | Rerank@4 | weighted@4 | tie-break@4 | upper bound |"
    top1 = json.loads((sft / "results.json").read_text())["test"]["ordinary"]["top1"]
    assert lines[4].startswith(f"| sft | {top1:.1%} (")
    assert lines[4].endswith(" | - | - | - | - |")
    assert lines[5].startswith("| ppo (ranked by ")
    assert lines[5].count("| - |") == 1, "all but Top-1"
    text = (tmp_path / "report" / "report.html").read_text()
    shown = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [run["stage"] for run in shown["runs"]][:2] == ["SFT", "PPO"]
    assert [line["name"] for line in shown["charts"]["curves"][0]["data"]] == ["sft", "ppo"]
    assert shown["charts"]["statuses"][0]["title"] == "ppo"
    assert set(shown["browser"]["origins"]) == {"greedy", "sampled", "rollout"}
