"""Every shipped overlay, laid over its stage's config, fits and tests; only the model's size and the data's amount are less.

Those of the paper's published models are parsed.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reft_pl.cli import main
from reft_pl.cli.run_folder import results_folder
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line
from reft_pl.data.stories.source import StorySource

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


def test_sft_on_prepared_gsm8k_and_tests_out_of_distribution(few_rows: Path, small: Callable[..., list[str]]) -> None:
    source, output = "data/gsm8k_official_train.jsonl", "data/gsm8k_python_sdp.json"
    assert main(["prepare", "gsm8k", "--source", source, "--output", output]) == 0
    fit_and_test(*configs("sft", "data/gsm8k_python"), *small("sft"), "--data.holdout", "4")
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


@pytest.mark.parametrize("form", ["python", "nl"])
@pytest.mark.parametrize(("data", "letters"), [("mathqa", True), ("mathqa_numeric", False)])
def test_sft_on_prepared_mathqa(
    data: str, letters: bool, form: str, few_rows: Path, small: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The overlays mathqa_python, mathqa_nl, mathqa_numeric_python and mathqa_numeric_nl, on problems of the release's form."""
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
    fit_and_test(*configs("sft", f"data/{data}_{form}"), *small("sft"), "--data.holdout", "4", "--data.on_too_long", "drop")


@pytest.mark.parametrize("data", ["gsm8k_chat"])
def test_ppo_on_public_questions_without_solutions(
    data: str, few_rows: Path, micro_model: Path, small: Callable[..., list[str]]
) -> None:
    model = few_rows / "instruct"
    shutil.copytree(micro_model, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    fit_and_test(
        *configs("ppo", f"data/{data}"), *small("ppo", model), "--data.holdout", "4", "--model.policy.from_scratch", "true"
    )


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["as_written", "compiled"])
def test_the_pretrained_models_recipe(compiled: bool, few_rows: Path, small: Callable[..., list[str]]) -> None:
    """Bfloat16 with float32 master weights, from the warm-up's export to ReFT, as the overlays for SmolLM2 say."""
    further = ["--data.holdout", "4", "--model.policy.compile", str(compiled).lower()]
    fit_and_test(*configs("sft", "data/svamp_python", "models/smollm2_135m"), *small("sft"), *further)
    warm_up = few_rows / "sft" / "hf"
    for overlay in ("models/smollm2_135m_ppo", "models/smollm2_135m_rloo"):
        fit_and_test(*configs("ppo", "data/svamp_python", overlay), *small(overlay[-4:], warm_up), *further)


ALGORITHMS = ["grpo", "dr_grpo", "rloo", "maxrl", "reinforce", "reinforce_baseline", "dapo", "gspo"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_over_ppo(algorithm: str, few_rows: Path, small: Callable[..., list[str]]) -> None:
    arguments = [*small("ppo"), "--data.holdout", "4", "--trainer.limit_train_batches", "1"]
    assert main(["fit", *configs("ppo", f"algorithms/{algorithm}", "data/svamp_python"), *arguments]) == 0


def test_every_algorithm_is_tried() -> None:
    assert {path.stem for path in (CONFIGS / "algorithms").iterdir()} == {*ALGORITHMS}


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
    at = [*configs("reranker", "models/smollm2_135m_reranker"), *sizes, "--run_dir", str(few_rows / "reranker")]  # compiled
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


@pytest.mark.slow
def test_offline_self_training(few_rows: Path, small: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """It learns from the samples that its comment says how to make, and not without them."""
    arguments = [*configs("sft", "offline_self_training"), *small("offline"), "--data.eval_batch_size", "4"]
    assert main(["fit", *arguments]) == 2
    assert "there are no samples at runs/sft/samples/train.jsonl" in capsys.readouterr().err
    samples = few_rows / "runs" / "sft" / "samples"
    samples.mkdir(parents=True)
    problem = StorySource("train", 1).load()[0]
    assert problem.answer is not None
    right = Prediction(f'def solution():\n    """{problem.question}"""\n    return {problem.answer}', problem.answer, True)
    item = SampledQuestion(problem.id, problem.question, problem.answer, (right,))
    (samples / "train.jsonl").write_text(to_line(item))
    fit_and_test(*arguments)


@pytest.mark.parametrize(("rollout", "sampler"), [("vllm", "VLLMSampler"), ("vllm_server", "VLLMServerSampler")])
@pytest.mark.parametrize("stage", ["sft", "ppo", "online_self_training", "sample"])
def test_rollouts_by_vllm_lie_over_everything_that_samples(
    stage: str, rollout: str, sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With vLLM installed they are run in ``test_vllm_runs.py``."""
    assert main(["predict" if stage == "sample" else "fit", *configs(stage, f"rollout/{rollout}"), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["sampler"]["class_path"] == f"reft_pl.rollout.vllm.{sampler}"


PAPER = {path.stem for path in (CONFIGS / "paper").glob("*.yaml")}
POLICIES = {
    "codellama_7b_sft_warmup": "lqtrung1998/Codellama-7b-hf-SFT-warmup-GSM8k",
    "codellama_7b_sft": "lqtrung1998/Codellama-7b-hf-SFT-GSM8k",
    "codellama_7b_reft": "lqtrung1998/Codellama-7b-hf-ReFT-GSM8k",
    "galactica_6_7b_sft_warmup": "lqtrung1998/galactica-6.7b-SFT-warmup-GSM8k",
    "galactica_6_7b_sft": "lqtrung1998/galactica-6.7b-SFT-GSM8k",
    "galactica_6_7b_reft": "lqtrung1998/galactica-6.7b-ReFT-GSM8k",
}
RERANKERS = {
    "codellama_7b_sft_reranker": "lqtrung1998/Codellama-7b-hf-SFT-Rerank-GSM8k",
    "codellama_7b_reft_reranker": "lqtrung1998/Codellama-7b-hf-ReFT-Rerank-GSM8k",
    "galactica_6_7b_sft_reranker": "lqtrung1998/galactica-6.7b-SFT-Rerank-GSM8k",
    "galactica_6_7b_reft_reranker": "lqtrung1998/galactica-6.7b-ReFT-Rerank-GSM8k",
}


@pytest.fixture
def parsed(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What the config of a verb comes to.

    Seven billion weights do not fit here: the overlays of published models are parsed, and ``test_released.py`` runs some of
    them on tiny weights.
    """

    def parse(verb: str, *names: str) -> dict[str, Any]:
        assert main([verb, *configs(*names), "--print_config"]) == 0
        config: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
        assert config["model"]["init_args"]["policy"]["dtype"] == "bfloat16"
        data = config["data"]
        assert data["format"]["class_path"] == "reft_pl.formats.PythonProgram"
        assert (data["max_prompt_tokens"], data["max_tokens"], data["add_bos"]) == (700, 1024, False)
        return config

    return parse


@pytest.mark.parametrize(("verb", "under"), [("test", "sft"), ("predict", "sample")])
@pytest.mark.parametrize("name", POLICIES)
def test_a_published_policy_is_tested_and_sampled_by_its_hub_id(
    name: str, verb: str, under: str, parsed: Callable[..., dict[str, Any]]
) -> None:
    config = parsed(verb, under, f"paper/{name}", *(["paper/gsm8k_sample"] if verb == "predict" else []))
    settings, data = config["model"]["init_args"], config["data"]
    assert config["ckpt_path"] == settings["policy"]["init_from"] == POLICIES[name]
    assert settings["policy"]["from_scratch"] is False
    assert {name: source["init_args"]["path"] for name, source in data["test"].items()} == {"gsm8k": "data/gsm8k_test_set.json"}
    if verb == "predict":
        assert (settings["n"], settings["temperature"], settings["top_k"], settings["top_p"]) == (100, 1.0, 50, 1.0)
        assert data["predict"] is None, "all test sets"


@pytest.mark.parametrize("name", RERANKERS)
def test_a_published_reranker_ranks_what_its_policy_sampled(name: str, parsed: Callable[..., dict[str, Any]]) -> None:
    policy = parsed("predict", "sample", f"paper/{name.removesuffix('_reranker')}", "paper/gsm8k_sample")
    config = parsed("test", "reranker", f"paper/{name}")
    assert config["ckpt_path"] == config["model"]["init_args"]["policy"]["init_from"] == RERANKERS[name]
    assert RERANKERS[name] == policy["ckpt_path"].replace("-GSM8k", "-Rerank-GSM8k")
    sampled = results_folder(Path(policy["run_dir"]), policy["ckpt_path"]) / "samples" / "gsm8k.jsonl"
    assert config["data"]["samples"] == {"gsm8k": str(sampled)}
    assert config["run_dir"] == f"{policy['run_dir']}-reranker"


def test_all_ten_published_models_have_an_overlay() -> None:
    assert len(POLICIES | RERANKERS) == 10
    assert {*POLICIES, *RERANKERS, "gsm8k_sample"} == PAPER


@pytest.mark.parametrize(
    ("under", "stage", "rate", "batch", "epochs"), [("sft", "sft_7b", 1e-5, 48, 40), ("ppo", "reft_7b", 3e-7, 32, 300)]
)
@pytest.mark.parametrize("model", ["codellama_7b", "galactica_6_7b"])
@pytest.mark.parametrize("card", ["lora_24gb", "full_80gb", "full_8x80gb"])
def test_a_card_changes_neither_batch_nor_length_of_the_papers_runs(
    under: str, stage: str, rate: float, batch: int, epochs: int, model: str, card: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (under, "data/gsm8k_python", f"paper/models/{model}", f"paper/stages/{stage}", f"gpu/{card}")
    assert main(["fit", *configs(*names), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    settings = config["model"]["init_args"]
    assert (config["data"]["batch_size"], config["trainer"]["max_epochs"]) == (batch, epochs)
    assert settings["optimizer"]["init_args"]["lr"] == (1e-4 if card == "lora_24gb" else rate)
    assert (settings["policy"]["lora"] is not None) == (card == "lora_24gb")
    assert settings["policy"]["gradient_checkpointing"] is True


@pytest.mark.parametrize("card", ["lora_24gb", pytest.param("full_80gb", marks=pytest.mark.slow)])
def test_a_cards_overlay_trains_on_the_cpu(card: str, few_rows: Path, small: Callable[..., list[str]]) -> None:
    """All of it but the card: adapters or an offloaded optimizer, checkpointing, the reference elsewhere."""
    on_cpu = ["--trainer.accelerator", "cpu"]
    assert main(["fit", *configs("sft"), *small("sft"), *on_cpu]) == 0
    extra = ["--model.offload_reference", "true"] if card == "full_80gb" else []
    fit_and_test(*configs("ppo", f"gpu/{card}"), *small("ppo", few_rows / "sft" / "hf"), *on_cpu, *extra)


@pytest.mark.parametrize("name", ["ddp", "zero1", "zero2", "zero3", "ddp_cpu", "zero1_cpu", "zero2_cpu", "zero3_cpu"])
@pytest.mark.parametrize("stage", ["sft", "ppo", "online_self_training", "reranker"])
def test_a_strategy_goes_over_any_stage(name: str, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They are parsed here; ``tests/strategies`` trains under those for CPU ranks."""
    assert main(["fit", *configs(stage, f"strategy/{name}"), "--print_config"]) == 0
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    cpu = name.endswith("_cpu")
    assert (trainer["accelerator"], trainer["devices"]) == (("cpu", 2) if cpu else ("gpu", "auto"))
    if name.startswith("ddp"):
        assert trainer["strategy"] == "ddp"
    else:
        assert trainer["strategy"]["class_path"] == "reft_pl.strategies.ZeRO"
        assert trainer["strategy"]["init_args"]["stage"] == int(name.removesuffix("_cpu")[-1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without a GPU")
def test_a_strategy_for_gpus_is_refused_in_a_sentence_without_one(
    few_rows: Path, small: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *configs("sft", "strategy/ddp"), *small("sft")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("reft-pl fit: ")
    assert "accelerator" in said


def test_no_config_is_left_out() -> None:
    """A new overlay wants a test here; a new config of a stage wants one, here or wherever that stage is tested."""
    here = Path(__file__).read_text()
    tests = "".join(path.read_text() for path in (CONFIGS.parent / "tests").rglob("test_*.py"))
    stages = {path.stem for path in CONFIGS.glob("*.yaml")}
    cells = [CONFIGS / folder for folder in ("paper/models", "paper/stages", "data/self_training")]  # test_paper_cells.py
    overlays = {path.stem for path in CONFIGS.rglob("*.yaml") if path.parent not in (CONFIGS, *cells)}
    assert {name for name in overlays if not re.search(rf"\b{name}\b", here)} == set()
    elsewhere = {name for name in stages if f'"configs/{name}.yaml"' in tests}
    assert {name for name in stages - elsewhere if not re.search(rf'configs\(.*"{name}"', here)} == set()
