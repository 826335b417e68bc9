"""Shipped overlays train and test, with a smaller model and less data. ``test_shipped_configs.py`` parses all configs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from reft_pl.cli import main
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line
from reft_pl.data.stories.source import StorySource
from reft_pl.evaluation.report.scalars import read_curves

Overlay = Callable[..., str]


@pytest.fixture
def few_rows(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the first rows of every public file in ``data/``."""
    (tmp_path / "data").mkdir()
    for file in (shared / "data").iterdir():
        text = file.read_text(encoding="utf-8")
        few = json.dumps(json.loads(text)[:16]) if file.suffix == ".json" else "\n".join(text.splitlines()[:16]) + "\n"
        (tmp_path / "data" / file.name).write_text(few, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(micro_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments that shrink any shipped config to seconds but keep the format and precision of its overlays."""

    def arguments(run: str, init_from: Path | None = None) -> list[str]:
        policy = {"init_from": str(init_from or micro_model), "from_scratch": init_from is None, "compile": False}
        config = {
            "run_dir": str(tmp_path / run),
            "model": {"init_args": {"policy": policy}},
            "data": {
                "batch_size": 4,
                "max_tokens": 500,
                "max_prompt_tokens": 480,
                "cache_dir": str(tmp_path / "cache"),
            },
            "trainer": {
                "max_epochs": 1,
                "limit_train_batches": 2,
                "limit_val_batches": 1,
                "limit_test_batches": 1,
                "val_check_interval": 1.0,
                "check_val_every_n_epoch": 1,
            },
        }
        path = tmp_path / f"{run}-small.yaml"
        path.write_text(yaml.safe_dump(config))
        return ["--config", str(path)]

    return arguments


def fit_and_test(run: Path, *args: str) -> dict[str, int]:
    """Train and test, and return the number of questions of every test set."""
    assert main(["fit", *args]) == 0
    assert main(["test", *args]) == 0
    results = json.loads((run / "results.json").read_text())
    return {name: figures["n"] for name, figures in results["test"].items()}


def configs(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--config", f"configs/{name}.yaml")]


@pytest.mark.parametrize("data", ["svamp_python", "svamp_nl", "gsm8k_nl"])
def test_sft_on_public_data(data: str, few_rows: Path, small: Callable[..., list[str]]) -> None:
    tested = fit_and_test(few_rows / "sft", *configs("sft", f"data/{data}"), *small("sft"), "--data.holdout", "4")
    assert tested == {data.partition("_")[0]: 16}


def test_sft_on_prepared_gsm8k_and_tests_out_of_distribution(few_rows: Path, small: Callable[..., list[str]]) -> None:
    source, output = "data/gsm8k_official_train.jsonl", "data/gsm8k_python_sdp.json"
    assert main(["prepare", "gsm8k", "--source", source, "--output", output]) == 0
    at = [*configs("sft", "data/gsm8k_python"), *small("sft"), "--data.holdout", "4"]
    assert fit_and_test(few_rows / "sft", *at) == {"gsm8k": 16}
    hard = [{"input": f"A box has {n} pens. How many do 2 have?", "code": "", "target": 2.0 * n} for n in (7000, 123456)]
    (few_rows / "hard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hard))
    asdiv = [
        {"body": "Seven red apples and two green apples are in the basket.", "question": "How many?", "answer": "9 (apples)"},
        {"body": "Tom and Mary ran.", "question": "Who won?", "answer": "Tom; Mary"},
        {"body": "It costs $2.", "question": "What do 3 cost?", "answer": "6 (dollars)"},
    ]
    (few_rows / "asdiv.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asdiv))
    for name, n in (("gsm_hard", 2), ("asdiv", 2)):
        source = few_rows / f"{name.removeprefix('gsm_')}.jsonl"
        at = [*configs("sft", "data/gsm8k_python", f"data/{name}"), *small("sft"), "--data.holdout", "4"]
        assert main(["test", *at, f"--data.test.{name}.path", str(source)]) == 0
        assert json.loads((few_rows / "sft" / "results.json").read_text())["test"][name]["n"] == n


@pytest.mark.parametrize(
    ("data", "letters", "form"),
    [
        pytest.param("mathqa", True, "python", marks=pytest.mark.slow),
        ("mathqa", True, "nl"),
        pytest.param("mathqa_numeric", False, "python", marks=pytest.mark.slow),
        pytest.param("mathqa_numeric", False, "nl", marks=pytest.mark.slow),
    ],
)
def test_sft_on_prepared_mathqa(
    data: str, letters: bool, form: str, few_rows: Path, small: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The overlays mathqa_python, mathqa_nl, mathqa_numeric_python and mathqa_numeric_nl, on rows in the release's format."""
    problems = [
        {
            "Problem": f"{n} boxes hold 3 pens each . how many pens are that ?",
            "Rationale": f'"{n} * 3 = {3 * n} . answer : c"',
            "options": f"a ) 1 , b ) {2 * n} , c ) {3 * n} , d ) 1,000 , e ) none of these",
            "correct": "c",
            "linear_formula": "multiply(n0,n1)|",
        }
        for n in range(2, 14)
    ]
    Path("official.json").write_text(json.dumps(problems))
    dataset = data.replace("_", "-")
    output = f"data/{dataset}_{'nl' if form == 'nl' else 'python_sdp'}.json"
    assert main(["prepare", dataset, "--source", "official.json", "--output", output, "--cot", form]) == 0
    rows = json.loads(Path(output).read_text())
    assert [row["answer_value"] for row in rows] == (["c"] * 12 if letters else [str(3 * n) for n in range(2, 14)])
    at = [*configs("sft", f"data/{data}_{form}"), *small("sft"), "--data.holdout", "4", "--data.on_too_long", "drop"]
    ((name, n),) = fit_and_test(few_rows / "sft", *at).items()
    assert name == data
    assert 0 < n <= 16


@pytest.mark.slow
def test_ppo_on_public_questions_without_solutions(few_rows: Path, micro_model: Path, small: Callable[..., list[str]]) -> None:
    model = few_rows / "instruct"
    shutil.copytree(micro_model, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    at = [
        *configs("ppo", "data/gsm8k_chat"),
        *small("ppo", model),
        "--data.holdout",
        "4",
        "--model.policy.from_scratch",
        "true",
    ]
    assert fit_and_test(few_rows / "ppo", *at) == {"gsm8k": 16}
    assert (few_rows / "ppo" / "hf" / "chat_template.jinja").exists()


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["as_written", "compiled"])
def test_the_pretrained_models_recipe(compiled: bool, few_rows: Path, small: Callable[..., list[str]]) -> None:
    """Bfloat16 with float32 master weights, from warm-up to ReFT, with the overlays for SmolLM2."""
    further = ["--data.holdout", "4", "--model.policy.compile", str(compiled).lower()]
    at = [*configs("sft", "data/svamp_python", "models/smollm2_135m"), *small("sft"), *further]
    assert fit_and_test(few_rows / "sft", *at) == {"svamp": 16}
    for run in ("ppo", "rloo"):
        at = configs("ppo", "data/svamp_python", f"models/smollm2_135m_{run}")
        assert fit_and_test(few_rows / run, *at, *small(run, few_rows / "sft" / "hf"), *further) == {"svamp": 16}


@pytest.mark.parametrize(
    ("algorithm", "left_out"),
    [pytest.param("dapo", 1.0, marks=pytest.mark.slow), ("reinforce_baseline", 0.0), ("annotated", 0.0)],
)
def test_an_algorithm_over_ppo(algorithm: str, left_out: float, few_rows: Path, small: Callable[..., list[str]]) -> None:
    """DAPO skips groups of wrong answers. ``test_shipped_configs.py`` has the settings of all algorithms."""
    arguments = [*small("ppo"), "--data.holdout", "4", "--trainer.limit_train_batches", "1"]
    assert main(["fit", *configs("ppo", f"algorithms/{algorithm}", "data/svamp_python"), *arguments]) == 0
    curves = read_curves(few_rows / "ppo")
    assert curves["rollout/left_out"].values == [left_out]
    assert ("update/annotated_loss" in curves) == ("update/annotated_coef" in curves) == (algorithm == "annotated")


@pytest.mark.slow
def test_the_pretrained_models_table(few_rows: Path, small: Callable[..., list[str]]) -> None:
    """More SFT after the warm-up, samples, and a reranker of them, as in ``benchmarks/svamp.sh``."""
    held_out = ["--data.holdout", "4"]
    assert main(["fit", *configs("sft", "data/svamp_python", "models/smollm2_135m"), *small("sft"), *held_out]) == 0
    run = few_rows / "sft"
    more = configs("sft", "data/svamp_python", "models/smollm2_135m_sft_more")
    assert fit_and_test(few_rows / "more", *more, *small("more", run / "hf"), *held_out) == {"svamp": 16}
    sizes = ["--data.max_prompt_tokens", "480", "--data.max_tokens", "500"]
    sample = [*configs("sample", "data/svamp_python", "models/smollm2_135m_sample"), *sizes, *held_out, "--run_dir", str(run)]
    assert main(["predict", *sample, "--data.predict", "[svamp,train,validation]", "--data.test.svamp.limit", "3"]) == 0
    files = {name: run / "samples" / f"{name}.jsonl" for name in ("train", "validation", "svamp")}
    assert [len(path.read_text().splitlines()) for path in files.values()] == [12, 4, 3]
    for path in files.values():  # this model is never right: say that it sometimes was
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["predictions"][0]["correctness"] = True
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    at = [*configs("reranker", "models/smollm2_135m_reranker"), *sizes, "--run_dir", str(few_rows / "reranker")]  # compiled
    at += ["--model.policy.init_from", str(run / "hf"), "--trainer.limit_train_batches", "2"]
    at += [item for name, path in files.items() for item in (f"--data.samples.{name}", str(path))]
    assert main(["fit", *at]) == main(["test", *at]) == 0
    assert list(json.loads((few_rows / "reranker" / "results.json").read_text())["rerank"]) == ["svamp"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "story"), [("sft", "sft_long"), ("ppo", "ppo_long"), ("ppo", "further")], ids=["sft_long", "ppo_long", "further"]
)
def test_longer_story_runs(stage: str, story: str, few_rows: Path, small: Callable[..., list[str]], overlay: Overlay) -> None:
    init_from = None
    if stage == "ppo":
        assert main(["fit", *configs("sft"), "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0
        init_from = few_rows / "sft" / "hf"
    tested = fit_and_test(few_rows / "run", *configs(stage, f"stories/{story}"), *small("run", init_from))
    assert [*tested] == ["ordinary", "unseen"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "sampled", "first"), [("offline_self_training", "sft", 0), ("stories/second_warm_up", "ppo-further", 2000)]
)
def test_offline_self_training(
    config: str, sampled: str, first: int, few_rows: Path, small: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Training needs the samples that the config's comment describes."""
    arguments = [*configs("sft", config), *small("offline"), "--data.eval_batch_size", "4"]
    assert main(["fit", *arguments]) == 2
    assert f"there are no samples at runs/{sampled}/samples/train.jsonl" in capsys.readouterr().err
    samples = few_rows / "runs" / sampled / "samples"
    samples.mkdir(parents=True)
    problem = StorySource("train", 1, first, solutions=first == 0).load()[0]
    assert problem.answer is not None
    right = Prediction(f'def solution():\n    """{problem.question}"""\n    return {problem.answer}', problem.answer, True)
    item = SampledQuestion(problem.id, problem.question, problem.answer, (right,))
    (samples / "train.jsonl").write_text(to_line(item))
    assert [*fit_and_test(few_rows / "offline", *arguments)] == ["ordinary", "unseen"]


@pytest.mark.slow
@pytest.mark.parametrize("card", ["lora_24gb", "full_80gb"])
def test_a_cards_overlay_trains_on_the_cpu(card: str, few_rows: Path, small: Callable[..., list[str]]) -> None:
    """Everything except the GPU: adapters or an offloaded optimizer, checkpointing, an offloaded reference."""
    few = ["--trainer.accelerator", "cpu", "--data.holdout", "4"]
    assert main(["fit", *configs("sft", "data/svamp_python"), *small("sft"), *few]) == 0
    few += ["--model.offload_reference", "true"] if card == "full_80gb" else []
    at = [*configs("ppo", "data/svamp_python", f"gpu/{card}"), *small("ppo", few_rows / "sft" / "hf"), *few]
    assert fit_and_test(few_rows / "ppo", *at) == {"svamp": 8 if card == "lora_24gb" else 16}, "one batch of evaluation"
    kept = torch.load(few_rows / "ppo" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert any("lora" in name for name in kept) == (card == "lora_24gb")


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without a GPU")
def test_a_gpu_strategy_without_a_gpu_is_one_sentence(
    few_rows: Path, small: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *configs("sft", "strategy/ddp"), *small("sft")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("reft-pl fit: ")
    assert "accelerator" in error
