"""The commands of docs/howto/paper.md for the paper's published models, on tiny weights in the same layout."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from reft_pl.cli import main
from reft_pl.data.sample_file import Prediction, SampledQuestion, to_line

Overlay = Callable[..., str]
Published = Callable[..., dict[str, torch.Tensor]]
Composed = Callable[..., dict[str, Any]]

CONFIGS = Path(__file__).parents[2] / "configs"
BASES = ("Codellama-7b-hf", "galactica-6.7b")

QUESTIONS = [
    {"item_id": "gsm8k_0", "question": "Ann has 3 pens and buys 4. How many?", "answer_value": "7"},
    {"item_id": "gsm8k_1", "question": "Bo had 9 figs and ate 2. How many?", "answer_value": "7"},
    {"item_id": "gsm8k_2", "question": "Cy has 2 bags of 4 nuts. How many?", "answer_value": "8"},
]

KEEP_FIRST_VALUES = '''
import torch
from reft_pl.modules import RolloutCallback


class KeepFirstValues(RolloutCallback):
    """Stores the first rollout's tokens and values."""

    def on_rollout_end(self, trainer, module, rollout):
        tokens = rollout.tokens
        if trainer.global_step == 0:
            masks = {"real": tokens.attention_mask, "actions": tokens.action_mask}
            torch.save({"ids": tokens.input_ids, "values": rollout.values, **masks}, "first.pt")
'''


@pytest.fixture
def few_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two questions in place of GSM8K's, and a third one for validation."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gsm8k_test_set.json").write_text(json.dumps(QUESTIONS[:2]))
    (tmp_path / "data" / "validation.json").write_text(json.dumps(QUESTIONS[2:]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_the_hubs_cache(publish: Published, few_questions: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a tiny model into the hub's cache under this id; the hub itself is unreachable."""
    cache = few_questions / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(hub_id: str, head: str) -> None:
        repository = cache / f"models--{hub_id.replace('/', '--')}"
        publish(repository / "snapshots" / ("0" * 40), "codellama" if "Codellama" in hub_id else "galactica", head)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)

    return put


of_two_policies = pytest.mark.parametrize(
    ("hub_id", "head"), [("lqtrung1998/Codellama-7b-hf-ReFT", "value"), ("lqtrung1998/galactica-6.7b-SFT", "lm")]
)
"""Their hub id without the dataset, and the head beside their trunk."""
POLICY, RERANKER = (["--config", f"configs/paper/published_{name}.yaml"] for name in ("policy", "reranker"))


def hub_ids(overlay: str) -> list[list[str]]:
    """Return the hub ids of every row of an overlay's table."""
    rows = [line for line in (CONFIGS / "paper" / f"{overlay}.yaml").read_text().splitlines() if line.startswith("# |")]
    return [found for row in rows if (found := re.findall(r"lqtrung1998/[\w.-]+", row))]


def test_the_headers_name_all_ten_published_models() -> None:
    policies = {hub_id for (hub_id,) in hub_ids("published_policy")}
    expected = {f"lqtrung1998/{base}-{stage}-GSM8k" for base in BASES for stage in ("SFT-warmup", "SFT", "ReFT")}
    assert policies == expected
    ranked = {(base, stage) for base in BASES for stage in ("SFT", "ReFT")}
    assert {tuple(row) for row in hub_ids("published_reranker")} == {
        (f"lqtrung1998/{base}-{stage}-Rerank-GSM8k", f"lqtrung1998/{base}-{stage}-GSM8k") for base, stage in ranked
    }


def test_a_published_policy_is_sampled_as_the_authors_did(composed: Composed) -> None:
    hub_id = "lqtrung1998/galactica-6.7b-SFT-GSM8k"
    config = composed("predict", "sample paper/stages/sample_7b paper/published_policy", "--ckpt_path", hub_id)
    settings = config["model"]["init_args"]
    assert (settings["n"], settings["temperature"], settings["top_k"], settings["top_p"]) == (100, 1.0, 50, 1.0)
    assert (config["data"]["max_prompt_tokens"], config["data"]["max_tokens"], config["data"]["add_bos"]) == (700, 1024, False)
    assert (config["ckpt_path"], config["data"]["predict"], [*config["data"]["test"]]) == (hub_id, None, ["gsm8k"])


def test_a_published_reranker_without_samples_has_nothing_to_rank(
    in_the_hubs_cache: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    hub_id = "lqtrung1998/galactica-6.7b-SFT-Rerank-GSM8k"
    assert main(["test", "--config", "configs/reranker.yaml", *RERANKER, "--ckpt_path", hub_id]) == 2
    assert "there is nothing to test on" in capsys.readouterr().err


@of_two_policies
def test_an_overlay_of_the_paper_tests_its_model_from_the_hubs_cache(
    hub_id: str,
    head: str,
    in_the_hubs_cache: Callable[[str, str], None],
    few_questions: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    in_the_hubs_cache(f"{hub_id}-GSM8k", head)
    overlays = ["--config", "configs/sft.yaml", *POLICY, "--ckpt_path", f"{hub_id}-GSM8k"]
    limits = ["--data.max_prompt_tokens", "200", "--data.max_tokens", "210", "--data.cache_dir", "tokens"]
    logging.getLogger("transformers.modeling_utils").addHandler(caplog.handler)
    assert main(["test", *overlays, *limits]) == 0
    logging.getLogger("transformers.modeling_utils").removeHandler(caplog.handler)
    assert f"weights of {hub_id}-GSM8k" in capsys.readouterr().out
    assert "LOAD REPORT" not in caplog.text
    (results,) = (few_questions / "runs").rglob("results.json")
    assert json.loads(results.read_text())["test"]["gsm8k"]["n"] == 2


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_ppo_starts_from_a_published_model_and_its_value_head(
    wrapped: bool, publish: Published, few_questions: Path, overlay: Overlay
) -> None:
    weights = publish(few_questions / "released", "galactica", "value", wrapped=wrapped)
    (few_questions / "keep_first_values.py").write_text(KEEP_FIRST_VALUES)
    train, validation = (
        [{"class_path": "AuthorsJson", "init_args": {"path": f"data/{name}.json"}}] for name in ("gsm8k_test_set", "validation")
    )
    config = overlay(
        "ppo",
        init_from=few_questions / "released",
        data={"train": train, "validation": validation, "test": None, "max_tokens": 210, "batch_size": 2},
        trainer={"max_epochs": 1, "callbacks+": [{"class_path": "keep_first_values.KeepFirstValues"}]},
    )
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", config]) == 0

    first = torch.load("first.pt", weights_only=True)
    lm = AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(few_questions / "ppo" / "hf").config)
    lm.load_state_dict({name: tensor.float() for name, tensor in weights.items() if not name.startswith("v_head")})
    with torch.no_grad():
        hidden = lm.eval()(first["ids"], attention_mask=first["real"], output_hidden_states=True).hidden_states[-1]
        values = (hidden @ weights["v_head.summary.weight"].float().T + weights["v_head.summary.bias"].float()).squeeze(-1)
    assert float(values[first["actions"]].abs().min()) > 0
    torch.testing.assert_close(first["values"][first["actions"]], values[first["actions"]], rtol=1e-4, atol=1e-5)

    exported = load_file(few_questions / "ppo" / "hf" / "model.safetensors").keys()
    assert not [name for name in exported if name.startswith(("pretrained_model.", "v_head."))]


@of_two_policies
def test_a_published_pair_samples_reranks_and_reports(
    hub_id: str,
    head: str,
    in_the_hubs_cache: Callable[[str, str], None],
    few_questions: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_the_hubs_cache(f"{hub_id}-GSM8k", head)
    in_the_hubs_cache(f"{hub_id}-Rerank-GSM8k", "classes")
    hundred = ["--config", "configs/sample.yaml", "--config", "configs/paper/stages/sample_7b.yaml"]
    small = ["--data.max_prompt_tokens", "200", "--data.max_tokens", "210", "--data.cache_dir", "tokens", "--model.n", "3"]
    assert main(["predict", *hundred, *POLICY, "--ckpt_path", f"{hub_id}-GSM8k", *small]) == 0
    samples = f"runs/paper/tests/{hub_id.replace('/', '--')}-GSM8k/samples/gsm8k.jsonl"
    ranker = ["--config", "configs/reranker.yaml", *RERANKER, "--ckpt_path", f"{hub_id}-Rerank-GSM8k"]
    assert main(["test", *ranker, "--data.samples.gsm8k", samples]) == 0
    assert f"test: weights of {hub_id}-Rerank-GSM8k" in capsys.readouterr().out
    runs = sorted(
        (path.parent for path in (few_questions / "runs").rglob("results.json")), key=lambda run: "Rerank" in run.name
    )
    sampled, ranked = (json.loads((run / "results.json").read_text()) for run in runs)
    assert (ranked["rerank"]["gsm8k"]["questions"], ranked["rerank"]["gsm8k"]["n"]) == (2, 3)
    assert sampled["samples"]["gsm8k"]["voting@3"] == ranked["rerank"]["gsm8k"]["voting@3"]
    assert sampled["reranked"]["gsm8k"]["rerank@3"] == ranked["rerank"]["gsm8k"]["rerank@3"]
    assert main(["report", *map(str, runs)]) == 0
    table = capsys.readouterr().out
    assert f"{hub_id.split('/')[1]}-GSM8k" in table
    assert "@3" in table


@pytest.mark.parametrize("family", ["codellama", "galactica"])
def test_a_published_reranker_gives_the_scores_that_transformers_gives(
    family: str, publish: Published, few_questions: Path
) -> None:
    """Each row alone through ``AutoModelForSequenceClassification``, without BOS, EOS or padding."""
    publish(few_questions / "released", family, "classes")
    bodies = ["return 3 + 4", "x = 3\n    y = 4\n    return x + y", "return 3 * 4", "return", "return 3 + 4"]
    items = [
        SampledQuestion(
            row["item_id"],
            row["question"],
            float(row["answer_value"]),
            tuple(Prediction(f"def solution():\n    {body}", 7.0 if "+" in body else None, "+" in body) for body in bodies),
        )
        for row in QUESTIONS
    ]
    (few_questions / "few.jsonl").write_text("".join(map(to_line, items)))
    (few_questions / "few.yaml").write_text("data: {samples: {few: few.jsonl}, add_bos: false}\nrun_dir: ranked\n")
    configs = ["--config", "configs/reranker.yaml", "--config", "few.yaml"]
    assert main(["test", *configs, "--ckpt_path", str(few_questions / "released")]) == 0

    (file,) = (few_questions / "ranked").rglob("scores/few.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["item_id"] for row in rows] == [item.id for item in items]
    tokenizer = AutoTokenizer.from_pretrained(few_questions / "released")
    model = AutoModelForSequenceClassification.from_pretrained(few_questions / "released", dtype=torch.float32).eval()
    for item, row in zip(items, rows, strict=True):
        expected = []
        for prediction in item.predictions:
            text = f"Question:\n{item.question}\nAnswer reasoning:\n{prediction.text}"
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                expected.append(model(ids).logits.softmax(-1)[0, 1].item())
        assert row["scores"] == pytest.approx(expected, abs=1e-5)
        assert len({round(score, 3) for score in expected}) == 4, "equal texts have equal scores, others do not"
