"""Small run folders with figures that can be checked by hand."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line
from reft_pl.evaluation.at_k import PerQuestion, reranking_figures, sampling_figures
from reft_pl.evaluation.files import update_results

HOSTILE = (
    '<script>document.title = "hacked"</script></script><img src=x onerror="document.title = 1">'
    "{{data}} \u2028 & &lt;b&gt; <!-- <script"
)


class RunFolder:
    """Write the files of a run one by one."""

    hostile = HOSTILE

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    @staticmethod
    def question(index: int, *texts: str, right: str = "") -> SampledQuestion:
        """Build a question with one sample per letter of ``right``: correct for ``r``, wrong otherwise."""
        verdicts = right.ljust(len(texts), "w")
        predictions = tuple(
            Prediction(text, 1.0 if verdict == "r" else 2.0, verdict == "r", "ok", 5)
            for text, verdict in zip(texts, verdicts, strict=True)
        )
        return SampledQuestion(f"q{index}", f"What is q{index}?", 1.0, predictions)

    def stage(self, name: str) -> None:
        (self.folder / "config.yaml").write_text(f"# written by fit\nmodel:\n  class_path: reft_pl.modules.{name}Module\n")

    def tested(self, name: str, verdicts: Mapping[str, bool], text: str = "def solution():\n    return 1") -> None:
        rows = [
            {"item_id": item, "question": f"What is {item}?", "response": text, "status": "ok" if right else "exception",
             "answer": 1.0 if right else None, "gold": 1.0, "correct": right}
            for item, right in verdicts.items()
        ]  # fmt: skip
        write_lines(self.folder / "predictions" / f"{name}.jsonl", rows)
        top1 = {"top1": sum(verdicts.values()) / len(verdicts), "n": len(verdicts), "interval95": [0.1, 0.9]}
        update_results(self.folder, "test", {name: top1})

    def sampled(self, name: str, items: Sequence[SampledQuestion]) -> None:
        path = self.folder / "samples" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(map(to_line, items)))
        figures = PerQuestion()
        for item in items:
            figures.update(sampling_figures(item))
        n = len(items[0].predictions)
        update_results(self.folder, "samples", {name: {"questions": len(items), "n": n, **figures.summary()}})

    def ranked(self, name: str, path: str, items: Sequence[SampledQuestion], scores: Sequence[float]) -> None:
        figures = PerQuestion()
        for item in items:
            figures.update(reranking_figures(item, scores) | sampling_figures(item))
        rows = [{"item_id": item.id, "scores": list(scores)} for item in items]
        write_lines(self.folder / "scores" / f"{name}.jsonl", rows)
        about = {"samples": path, "questions": len(items), "n": len(scores)}
        update_results(self.folder, "rerank", {name: {**about, **figures.summary()}})

    def rolled_out(self, texts: Sequence[str], questions: int) -> None:
        rows = [
            {"step": i // questions, "id": f"t{i % questions}", "question": f"What is t{i % questions}?", "text": text,
             "status": "ok", "value": float(i % 2), "gold": 1.0, "reward": 1.0}
            for i, text in enumerate(texts)
        ]  # fmt: skip
        write_lines(self.folder / "rollouts.jsonl", rows)

    def logged(self, **curves: Mapping[int, float]) -> None:
        """Log one start of the run; names are tags with ``__`` for the slash."""
        starts = len(list(self.folder.glob("*tfevents*")))
        with SummaryWriter(str(self.folder)) as writer:
            for name, curve in curves.items():
                for batch, value in curve.items():
                    writer.add_scalar(name.replace("__", "/"), value, batch)
        # Files are read in the order of their names, which begin with the second: these starts may be in one.
        (written,) = self.folder.glob("events.out.tfevents.*")
        written.rename(self.folder / f"{starts}.tfevents")


def alone(*folders: Path) -> dict[str, list[Path]]:
    """Give every run a separate row, as ``reft-pl report`` does without a pattern."""
    return {str(folder): [folder] for folder in folders}


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[str], RunFolder]:
    """Create an empty run folder of the given name under ``runs``."""
    return lambda name: RunFolder(tmp_path / "runs" / name)


@pytest.fixture
def reft(new_run: Callable[[str], RunFolder]) -> RunFolder:
    """A policy with all files that a run can have, and hostile completions."""
    run = new_run("re<i>ft & co")
    run.stage("PPO")
    run.tested("ordinary", {"q0": True, "q1": False, "q2": False, "q3": False}, HOSTILE)
    run.sampled("ordinary", [run.question(0, "a", "a", "b", "c", right="rr"), run.question(1, "d", HOSTILE, "e", "e")])
    run.rolled_out(["x = 1", HOSTILE, "x = 2", "x = 3"], questions=2)
    run.logged(
        val__top1={0: 0.1, 2: 0.3},
        rollout__reward={0: 0.2, 1: 0.4, 2: float("nan")},
        status__ok={0: 0.75, 1: 1.0},
        status__exception={0: 0.25, 1: 0.0},
        status__memory={0: 0.0, 1: 0.0},
    )
    return run


@pytest.fixture
def sft(new_run: Callable[[str], RunFolder]) -> RunFolder:
    """A policy with test results only."""
    run = new_run("sft")
    run.stage("SFT")
    run.tested(
        "ordinary", {"q0": True, "q1": True, "q2": False, "q3": False}, "def solution():\n    # none\n    return 'a1' + 12"
    )
    return run


@pytest.fixture
def reranker(new_run: Callable[[str], RunFolder], reft: RunFolder) -> RunFolder:
    """A reranker of the samples of ``reft``, in the folder above ``runs``."""
    run = new_run("reranker")
    run.stage("Reranker")
    items = [run.question(0, "a", "a", "b", "c", right="rr"), run.question(1, "d", HOSTILE, "e", "e")]
    run.ranked("ordinary", f"runs/{reft.folder.name}/samples/ordinary.jsonl", items, [0.4, 0.3, 0.9, 0.1])
    return run
