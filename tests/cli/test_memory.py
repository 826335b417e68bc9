"""`reft-pl memory` on the shipped configs: no weights, no hub, no GPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reft_pl.cli import main


def paper(under: str, stage: str, model: str) -> list[str]:
    names = (under, "data/gsm8k_python", "paper/base_model", f"paper/stages/{stage}")
    configs = [argument for name in names for argument in ("--config", f"configs/{name}.yaml")]
    return [*configs, "--model.policy.init_from", model]


WARM_UP = "lqtrung1998/Codellama-7b-hf-SFT-warmup-GSM8k"
GALACTICA = "facebook/galactica-6.7b"
REFT = paper("ppo", "reft_7b", WARM_UP)


def plan(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = main(["memory", *args])
    return code, capsys.readouterr().out


def gib(text: str, name: str) -> float:
    found = re.search(rf"^  {name} +([\d.]+) GiB", text, re.M)
    assert found, text
    return float(found[1])


def test_the_papers_reft_does_not_fit_on_one_card(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = plan(capsys, *REFT, "--gpus", "1", "--gpu_memory", "80")
    assert code == 1
    assert "does NOT fit" in text
    assert gib(text, "weights") == pytest.approx(6.738e9 * 2 / 2**30, rel=0.01)
    assert gib(text, "optimizer moments") == pytest.approx(6.738e9 * 8 / 2**30, rel=0.01)
    assert "32 sequences = 1 GPU x 32, in at most 7 micro-batches of 4,096 tokens on each (5 of 700 tokens)" in text


@pytest.mark.parametrize(
    ("card", "memory", "extra"),
    [("lora_24gb", "24", []), ("full_80gb", "80", ["--model.offload_reference", "true"])],
)
def test_each_cards_overlay_fits_its_card(card: str, memory: str, extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if "lora" not in card:
        assert "does NOT fit" in plan(capsys, *REFT, "--gpu_memory", memory)[1], "it is needed"
    code, text = plan(capsys, *REFT, "--config", f"configs/gpu/{card}.yaml", *extra, "--gpu_memory", memory)
    assert code == 0, text


def test_auto_counts_as_bfloat16_on_any_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reft_pl.models.settings.fastest_dtype", lambda: "float32")
    sft, cards = paper("sft", "sft_7b", GALACTICA), ("--gpus", "8")
    assert plan(capsys, *sft, *cards, "--model.policy.dtype", "auto") == plan(capsys, *sft, *cards)


def test_the_authors_batch_is_kept_on_any_number_of_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    """The rows of the table in docs/howto/launch.md."""
    sft = paper("sft", "sft_7b", GALACTICA)
    for gpus, share, micro in ((1, 48, 12), (2, 24, 6), (8, 6, 2), (16, 3, 1)):
        _, text = plan(capsys, *sft, "--gpus", str(gpus))
        assert f"48 sequences = {gpus} GPU{'s' * (gpus > 1)} x {share}, in at most {micro} micro-batch" in text


def test_the_configs_number_of_gpus_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    node = ["--config", "configs/strategy/zero.yaml", "--config", "configs/gpu/full_8x80gb.yaml"]
    code, text = plan(capsys, *REFT, *node)
    assert code == 0, text
    assert "32 sequences = 8 GPUs x 4" in text
    assert "32 sequences = 16 GPUs x 2" in plan(capsys, *REFT, *node, "--trainer.num_nodes", "2")[1]


def test_annotated_solutions_take_micro_batches_and_may_take_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """32 samples in steps of 4 fill less than a micro-batch of 5; with 16 solutions in a step, the micro-batch is full."""
    small = (*REFT, "--model.minibatch_size", "4", "--gpus", "1")
    on = ["--model.annotated_coef", "1"]
    alone, default, more = (plan(capsys, *small, *extra)[1] for extra in ([], on, [*on, "--model.annotated_batch_size", "16"]))
    assert "4 sequences = 1 GPU x 4, in at most 1 micro-batch of 4,096 tokens on each (4 of 700 tokens)" in alone
    assert "4 sequences = 1 GPU x 4, and 4 annotated solutions, in at most 2 micro-batches" in default
    assert gib(default, "update") == gib(alone, "update"), "one micro-batch after the other"
    assert "and 16 annotated solutions, in at most 5 micro-batches of 4,096 tokens on each (5 of 700 tokens)" in more
    assert gib(more, "activations") == pytest.approx(5 / 4 * gib(alone, "activations"), rel=0.01)
    whole = plan(capsys, *REFT, "--gpus", "1", *on, "--model.annotated_batch_size", "999")[1]
    assert "and 32 annotated solutions" in whole, "no question is taken twice"


def test_compiled_layers_are_reported_as_an_upper_bound(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*REFT, "--model.policy.compile", "true")
    assert "upper bound" in plan(capsys, *arguments)[1]
    assert "upper bound" not in plan(capsys, *REFT)[1]
    assert "upper bound" not in plan(capsys, *arguments, "--model.policy.gradient_checkpointing", "true")[1]


def test_user_errors_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory"]) == 2
    assert "name the run with --config" in capsys.readouterr().err
    assert main(["memory", *REFT, "--gpus", "0"]) == 2
    assert main(["memory", *REFT, "--gpus", "64"]) == 2
    assert "cannot be shared by 64 GPUs" in capsys.readouterr().err
    assert main(["memory", *REFT, "--model_config", "no/such/folder"]) == 2
    assert "no/such/folder" in capsys.readouterr().err
    assert main(["memory", *REFT, "--config", "configs/strategy/zero.yaml"]) == 2
    assert "trainer.devices is 'auto', which depends on the machine: give --gpus" in capsys.readouterr().err
    assert main(["memory", "--config", "configs/sample.yaml"]) == 2
    assert "does not train" in capsys.readouterr().err
    assert main(["memory", *REFT, "--model_config", "configs/models/tiny_llama/tokenizer.json"]) == 2
    assert "give a config.json" in capsys.readouterr().err


SUBCLASSES = """
import torch
from reft_pl.models.optim import MasterAdamW
from reft_pl.modules import PPOModule, RerankerModule, SFTModule
from reft_pl.rl.estimators import GAE
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.strategies import ZeRO


class Stage(PPOModule): ...
class WarmUp(SFTModule): ...
class Values(GAE): ...
class Drawing(InProcessSampler): ...
class Adam(MasterAdamW): ...
class Descent(torch.optim.SGD): ...
class Shared(ZeRO): ...
"""


BFLOAT16 = ["--model.policy.init_from", WARM_UP, "--model.policy.from_scratch", "false", "--model.policy.dtype", "bfloat16"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["--model", "trivial.Stage"]),
        ([], ["--model.sampler", "trivial.Drawing"]),
        ([], ["--model.optimizer", "trivial.Adam"]),
        (["--model.optimizer", "torch.optim.SGD"], ["--model.optimizer", "trivial.Descent"]),
        (
            ["--model.separate_value_model", "true"],
            ["--model.separate_value_model", "true", "--model.advantages", "trivial.Values"],
        ),
        (
            ["--config", "configs/strategy/zero.yaml", "--trainer.devices", "2"],
            ["--trainer.strategy", "trivial.Shared", "--trainer.strategy.stage", "2", "--trainer.devices", "2"],
        ),
    ],
    ids=["stage", "sampler", "optimizer", "sgd", "estimator", "strategy"],
)
def test_a_trivial_subclass_needs_the_memory_of_its_base(
    before: list[str], after: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trivial.py").write_text(SUBCLASSES)
    ppo = ["--config", "configs/ppo.yaml", *BFLOAT16]
    expected = plan(capsys, *ppo, *before)[1]
    assert "scoring" in expected, "the phase that a subclass lost"
    assert gib(expected, "reference") > 0
    assert plan(capsys, *ppo, *after)[1] == expected


def test_a_trivial_subclass_of_sft_has_no_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trivial.py").write_text(SUBCLASSES)
    sft = ["--config", "configs/sft.yaml", *BFLOAT16, "--data.eval_batch_size", "1"]
    expected = plan(capsys, *sft)[1]
    assert "scoring" not in expected
    assert plan(capsys, *sft, "--model", "trivial.WarmUp")[1] == expected
