"""Every shipped overlay, laid over its stage's config, fits and tests; only the model's size and the data's amount are less.

Those of the paper's published models are parsed.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from reft_pl.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
Overlay = Callable[..., str]


@pytest.fixture
def few_rows(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose ``data/`` has the first rows of every public file."""
    (tmp_path / "data").mkdir()
    for file in (shared / "data").iterdir():
        text = file.read_text(encoding="utf-8")
        few = json.dumps(json.loads(text)[:16]) if file.suffix == ".json" else "\n".join(text.splitlines()[:16]) + "\n"
        (tmp_path / "data" / file.name).write_text(few, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(micro_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments that shrink any shipped config to seconds and leave what its overlays say about form and precision."""

    def arguments(run: str, init_from: Path | None = None) -> list[str]:
        policy = {"init_from": str(init_from or micro_model), "from_scratch": init_from is None}
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


def fit_and_test(*args: str) -> None:
    assert main(["fit", *args]) == 0
    assert main(["test", *args]) == 0


def configs(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--config", f"configs/{name}.yaml")]


@pytest.mark.parametrize("data", ["svamp_python", "svamp_nl", "gsm8k_nl"])
def test_sft_on_public_data(data: str, few_rows: Path, small: Callable[..., list[str]]) -> None:
    fit_and_test(*configs("sft", f"data/{data}"), *small("sft"), "--data.holdout", "4")
    (figures,) = json.loads((few_rows / "sft" / "results.json").read_text())["test"].values()
    assert figures["n"] == 16


@pytest.mark.parametrize("data", ["gsm8k_python", "gsm8k_chat"])
def test_ppo_on_public_questions_without_solutions(
    data: str, few_rows: Path, micro_model: Path, small: Callable[..., list[str]]
) -> None:
    model = few_rows / "instruct"
    shutil.copytree(micro_model, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    fit_and_test(
        *configs("ppo", f"data/{data}"), *small("ppo", model), "--data.holdout", "4", "--model.policy.from_scratch", "true"
    )


def test_the_pretrained_models_recipe(few_rows: Path, small: Callable[..., list[str]]) -> None:
    """Bfloat16 with float32 master weights, from the warm-up's export to ReFT, as the overlays for SmolLM2 say."""
    fit_and_test(*configs("sft", "data/svamp_python", "models/smollm2_135m"), *small("sft"), "--data.holdout", "4")
    warm_up = few_rows / "sft" / "hf"
    fit_and_test(*configs("ppo", "data/svamp_python", "models/smollm2_135m_ppo"), *small("ppo", warm_up), "--data.holdout", "4")


@pytest.mark.slow
def test_the_pretrained_models_table(few_rows: Path, small: Callable[..., list[str]]) -> None:
    """SFT trained on from the warm-up, samples, and a reranker of them, as ``benchmarks/svamp.sh`` does."""
    held_out = ["--data.holdout", "4"]
    assert main(["fit", *configs("sft", "data/svamp_python", "models/smollm2_135m"), *small("sft"), *held_out]) == 0
    run = few_rows / "sft"
    more = configs("sft", "data/svamp_python", "models/smollm2_135m_sft_more")
    fit_and_test(*more, *small("more", run / "hf"), *held_out)
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
    at = [*configs("reranker", "models/smollm2_135m_reranker"), *sizes, "--run_dir", str(few_rows / "reranker")]
    at += ["--model.policy.init_from", str(run / "hf"), "--trainer.limit_train_batches", "2"]
    fit_and_test(*at, *(item for name, path in files.items() for item in (f"--data.samples.{name}", str(path))))
    assert "rerank" in json.loads((few_rows / "reranker" / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "story"), [("sft", "sft_long"), ("ppo", "ppo_long"), ("ppo", "further")], ids=["sft_long", "ppo_long", "further"]
)
def test_longer_story_runs(stage: str, story: str, few_rows: Path, small: Callable[..., list[str]], overlay: Overlay) -> None:
    init_from = None
    if stage == "ppo":
        assert main(["fit", *configs("sft"), "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0
        init_from = few_rows / "sft" / "hf"
    fit_and_test(*configs(stage, f"stories/{story}"), *small("run", init_from))


PAPER = sorted(path.stem for path in (CONFIGS / "paper").glob("*.yaml"))
POLICIES = {
    "codellama_7b_sft_warmup": "lqtrung1998/Codellama-7b-hf-SFT-warmup-GSM8k",
    "codellama_7b_sft": "lqtrung1998/Codellama-7b-hf-SFT-GSM8k",
    "codellama_7b_reft": "lqtrung1998/Codellama-7b-hf-ReFT-GSM8k",
    "galactica_6_7b_sft_warmup": "lqtrung1998/galactica-6.7b-SFT-warmup-GSM8k",
    "galactica_6_7b_sft": "lqtrung1998/galactica-6.7b-SFT-GSM8k",
    "galactica_6_7b_reft": "lqtrung1998/galactica-6.7b-ReFT-GSM8k",
}


@pytest.mark.parametrize("name", PAPER)
def test_a_published_model_is_tested_by_its_hub_id(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Seven billion weights do not fit here: configs are parsed, and ``test_released.py`` runs two of them on tiny weights."""
    assert main(["test", *configs("sft", f"paper/{name}"), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    policy, data = config["model"]["init_args"]["policy"], config["data"]
    assert config["ckpt_path"] == policy["init_from"] == POLICIES[name]
    assert policy["from_scratch"] is False
    assert policy["dtype"] == "bfloat16"
    assert {name: source["init_args"]["path"] for name, source in data["test"].items()} == {"gsm8k": "data/gsm8k_test_set.json"}
    assert data["format"]["class_path"] == "reft_pl.formats.PythonProgram"
    assert (data["max_prompt_tokens"], data["max_tokens"], data["add_bos"]) == (700, 1024, False)


def test_all_ten_published_models_are_named() -> None:
    text = "".join((CONFIGS / "paper" / f"{name}.yaml").read_text() for name in PAPER)
    rerankers = {policy.replace("-GSM8k", "-Rerank-GSM8k") for policy in POLICIES.values() if "warmup" not in policy}
    assert len(rerankers) == 4
    assert {hub_id for hub_id in {*POLICIES.values(), *rerankers} if hub_id not in text} == set()
    assert set(PAPER) == POLICIES.keys()


def test_no_overlay_is_left_out() -> None:
    """A new overlay wants a test here."""
    text = Path(__file__).read_text()
    overlays = {path.stem for path in CONFIGS.rglob("*.yaml") if path.parent != CONFIGS}
    assert {name for name in overlays if name not in text} == set()
