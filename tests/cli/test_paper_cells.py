"""Every cell of the paper resolves to the authors' settings, and trains one step on a tiny model of its architecture."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, CodeGenConfig

from reft_pl.cli import main
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line

Published = Callable[..., dict[str, torch.Tensor]]
Composed = Callable[..., dict[str, Any]]

DATASETS = ("gsm8k", "svamp", "mathqa", "mathqa_numeric")
COTS = ("python", "nl")
HUB_IDS = {
    "codellama_7b": "codellama/CodeLlama-7b-hf",
    "galactica_6_7b": "facebook/galactica-6.7b",
    "galactica_125m": "facebook/galactica-125m",
    "codegen_350m": "Salesforce/codegen-350M-mono",
}
LARGE, SMALL = ("codellama_7b", "galactica_6_7b"), ("galactica_125m", "codegen_350m")
STAGES = {"sft": "sft", "warm_up": "sft", "reft": "ppo", "online": "online_self_training", "offline": "sft"}
CELLS = [
    *product(DATASETS, COTS, LARGE, STAGES),
    *product(DATASETS, COTS, SMALL, ("sft", "warm_up", "reft")),
]
# Each data set and CoT with every stage, and each model with every stage; a warm-up is SFT that ends earlier.
STEPS = [
    (dataset, cot, models[(DATASETS.index(dataset) + COTS.index(cot) + stages.index(stage)) % 2], stage)
    for models, stages in ((LARGE, ("sft", "reft", "online", "offline")), (SMALL, ("sft", "reft")))
    for dataset, cot, stage in product(DATASETS, COTS, stages)
]
FEW = [
    ("gsm8k", "python", "codellama_7b", "reft"),
    ("mathqa", "nl", "galactica_125m", "sft"),
    ("svamp", "python", "codegen_350m", "reft"),
]


def command_line(dataset: str, cot: str, model: str, stage: str) -> list[str]:
    """Return the configs of a cell and the keys that their headers name."""
    size = "7b" if model in LARGE else "small"
    data, keys = [f"data/{dataset}_{cot}"], ["--model.policy.init_from", HUB_IDS[model]]
    if stage in ("reft", "online"):
        keys = []
        stages = [f"{stage}_{size}"]
        stages += ["reft_codegen"] if stage == "reft" and model == "codegen_350m" else []
        keys += ["--model.kl.coef", "0.05"] if (stage, cot) == ("reft", "nl") and dataset != "mathqa_numeric" else []
    else:
        stages = [f"sft_{size}"] + (["sft_small_mathqa"] if size == "small" and dataset.startswith("mathqa") else [])
    if stage == "offline":
        data += ["data/self_training"]
        stages += ["offline_7b"]
        keys += annotated(dataset, cot)
    if stage == "warm_up":
        keys += ["--run_dir", "runs/paper-warm-up", "--trainer.max_epochs", str(warm_up(dataset, cot, size))]
    names = [STAGES[stage], *data, "paper/base_model", *(f"paper/stages/{name}" for name in stages)]
    return [*(argument for name in names for argument in ("--config", f"configs/{name}.yaml")), *keys]


def annotated(dataset: str, cot: str) -> list[str]:
    """Return the keys of self-training's annotated problems, which are those of the data overlay."""
    if (dataset, cot) == ("gsm8k", "nl"):
        return ["--data.train.annotated", "Gsm8kOfficial", "--data.train.annotated.path", "data/gsm8k_official_train.jsonl"]
    file = f"{dataset.replace('_', '-')}_{'nl' if cot == 'nl' else 'python_sdp'}"
    return ["--data.train.annotated.path", f"data/{file}.json"]


def warm_up(dataset: str, cot: str, size: str) -> int:
    """Return the warm-up epoch from which ReFT starts."""
    if size == "small":
        return 40 if dataset.startswith("mathqa") else 10
    return {"mathqa_nl": 5, "mathqa_numeric_nl": 10}.get(f"{dataset}_{cot}", 2)


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, marks=[] if cell in FEW else [pytest.mark.slow], id="-".join(cell)) for cell in CELLS]
)
def test_a_cell_has_the_authors_settings(cell: tuple[str, str, str, str], composed: Composed) -> None:
    dataset, cot, model, stage = cell
    config = composed("fit", "", *command_line(*cell))
    settings, data = config["model"]["init_args"], config["data"]
    small, mathqa = model in SMALL, dataset.startswith("mathqa")
    schedule = settings["schedule"]["kind"], settings["schedule"]["warmup"], settings["schedule"]["epochs"]
    assert (data["add_bos"], settings["policy"]["dtype"]) == (False, "bfloat16")
    assert data["format"]["class_path"].endswith("PythonProgram" if cot == "python" else "NaturalLanguage")
    assert list(data["test"]) == [dataset]
    found = settings["optimizer"]["init_args"]["lr"], data["batch_size"], config["trainer"]["max_epochs"], *schedule
    if stage == "reft":
        batch = {"galactica_125m": 256, "codegen_350m": 128}.get(model, 32)
        assert found == (3e-6 if small else 3e-7, batch, 700 if small else 300, "constant", 0.0, None)
        assert settings["minibatch_size"] == batch
        assert settings["kl"]["coef"] == (0.05 if cot == "nl" and dataset != "mathqa_numeric" else 0.01)
        assert settings["value_coef"] == (0.1 if model == "codegen_350m" else 5.0)
        assert (settings["advantages"]["init_args"]["gamma"], settings["advantages"]["init_args"]["lam"]) == (1.0, 0.95)
    elif stage == "online":
        assert found == (3e-7, 32, 300, "constant", 0.0, None)
        assert settings["inner_epochs"] == 2
    else:
        epochs = 20 if stage == "offline" else 100 if small and mathqa else 40
        trained = warm_up(dataset, cot, "small" if small else "7b") if stage == "warm_up" else epochs
        assert found == (2e-5 if small else 1e-5, 48, trained, "linear", 0.1, epochs)
        assert data["max_tokens"] == 1024
    trained_from = "runs/paper-warm-up/hf" if stage in ("reft", "online") else HUB_IDS[model]
    assert settings["policy"]["init_from"] == trained_from
    if stage == "offline":
        plain = composed("fit", f"sft data/{dataset}_{cot}")["data"]["train"]
        assert [source["init_args"]["annotated"] for source in data["train"]] == plain


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few short problems of every dataset in ``data/``, under the file names of the overlays."""
    data = tmp_path / "data"
    data.mkdir()
    people, samples = ["Al", "Bo", "Cy", "Di", "Ed", "Flo"], []
    for dataset, file in zip(DATASETS, ("gsm8k", "svamp", "mathqa", "mathqa-numeric"), strict=True):
        rows = {"python_sdp": [], "nl": [], "test_set": []}
        for i, name in enumerate(people):
            question = f"{name} has {i} pens and gets 2. How many?" + ("\na ) 9 , b ) 2" if dataset == "mathqa" else "")
            answer = "b" if dataset == "mathqa" else str(i + 2)
            row = {"item_id": f"{file}_{i}", "question": question, "answer_value": answer}
            result = '"b"' if dataset == "mathqa" else f"{i} + 2"
            program = f'def solution():\n    """{question}"""\n    result = {result}\n    return result'
            rows["python_sdp"].append(row | {"answer_cot": program})
            rows["nl"].append(row | {"answer_cot": f"It is {i} + 2."})
            rows["test_set"].append(row | {"item_id": f"{file}_{i + 10}", "question": f"So: {question}"})
        for kind, content in rows.items():
            (data / f"{file}_{kind}.json").write_text(json.dumps(content))
    official = [
        {"question": f"{name} has {i} pens and gets 2. How many?", "answer": f"It is.\n#### {i + 2}"}
        for i, name in enumerate(people)
    ]
    for split, word in (("train", ""), ("test", "So: ")):
        lines = [json.dumps(row | {"question": word + row["question"]}) + "\n" for row in official]
        (data / f"gsm8k_official_{split}.jsonl").write_text("".join(lines))
    folder = tmp_path / "runs" / "paper-warm-up" / "samples"
    folder.mkdir(parents=True)
    for file, choice in (("gsm8k", ""), ("svamp", ""), ("mathqa", "\na ) 9 , b ) 2"), ("mathqa-numeric", "")):
        gold, text = ("b", "So.\nTherefore, the answer is: b") if choice else (2.0, "So.\nTherefore, the answer is: 2")
        question = f"Al has 0 pens and gets 2. How many?{choice}"
        samples.append(SampledQuestion(f"{file}_0", question, gold, (Prediction(text, gold, False),)))
    (folder / "train.jsonl").write_text("".join(map(to_line, samples)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(publish: Published, tmp_path: Path) -> Callable[[str], Path]:
    """A tiny random model with the architecture of one of the paper's models: Llama, OPT or CodeGen."""

    def make(model: str) -> Path:
        folder = tmp_path / model
        publish(folder, "codellama" if model == "codellama_7b" else "galactica", layout="safetensors")
        if model == "codegen_350m":
            for path in (*folder.glob("*.safetensors"), *folder.glob("*.bin*"), folder / "config.json"):
                path.unlink()
            size = {"n_positions": 1024, "n_ctx": 1024, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}
            config = CodeGenConfig(vocab_size=400, bos_token_id=2, eos_token_id=2, **size)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, marks=[] if cell in FEW else [pytest.mark.slow], id="-".join(cell)) for cell in sorted({*STEPS, *FEW})],
)
def test_a_cell_takes_a_step(cell: tuple[str, str, str, str], working_folder: Path, tiny: Callable[[str], Path]) -> None:
    small = {
        "run_dir": "runs/cell",
        "model": {"init_args": {"policy": {"init_from": str(tiny(cell[2]))}}},
        "data": {"holdout": 2, "batch_size": 4, "max_prompt_tokens": 280, "max_tokens": 320, "cache_dir": "tokens"},
        "trainer": {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0},
    }
    (working_folder / "small.yaml").write_text(yaml.safe_dump(small))
    assert main(["fit", *command_line(*cell), "--config", "small.yaml"]) == 0
    assert json.loads((working_folder / "runs" / "cell" / "results.json").read_text())["fit"]["batches"] == 1
    exported = json.loads((working_folder / "runs" / "cell" / "hf" / "config.json").read_text())
    assert exported["model_type"] == {"codellama_7b": "llama", "codegen_350m": "codegen"}.get(cell[2], "opt")
    shutil.rmtree(working_folder / "runs" / "cell")


@pytest.mark.parametrize("stage", ["warm_up", "sft", "reft", "online"])
def test_every_stage_is_evaluated_with_the_same_limits(stage: str, composed: Composed) -> None:
    cell = command_line("gsm8k", "python", "codellama_7b", stage)
    data = composed("test", "", *cell, "--config", "configs/paper/stages/evaluate.yaml")["data"]
    assert (data["max_prompt_tokens"], data["max_tokens"]) == (700, 1024)
