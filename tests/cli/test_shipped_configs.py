"""Every shipped config, combined as its header says, has the settings of its purpose. Training is tested elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.strategies import Strategy

from .purposes import ALGORITHMS, BASE, PURPOSES

CONFIGS = Path(__file__).parents[2] / "configs"
Composed = Callable[..., dict[str, Any]]


def shipped(folder: str = "") -> list[str]:
    """Return the names of all configs in a folder, without ``configs/`` and ``.yaml``."""
    return sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in (CONFIGS / folder).rglob("*.yaml"))


def setting(config: Any, key: str) -> Any:
    """Return the value of a command-line key: the name of a class, or the keys of a mapping."""
    for part in key.split("."):
        config = config[int(part)] if isinstance(config, list) else config.get("init_args", config)[part]
    if isinstance(config, dict):
        return config["class_path"].rsplit(".", 1)[-1] if "class_path" in config else list(config)
    return config


def test_every_config_has_a_purpose() -> None:
    assert {*PURPOSES, *(f"algorithms/{name}" for name in ALGORITHMS)} == {*shipped()}


@pytest.mark.parametrize("name", [name for name in shipped() if not name.startswith("algorithms/")])
def test_a_config_has_the_settings_of_its_purpose(name: str, composed: Composed) -> None:
    purpose = PURPOSES[name]
    config = composed(purpose.verb, f"{purpose.after} {name}")
    assert {key: setting(config, key) for key in purpose.settings} == purpose.settings


@pytest.mark.parametrize("name", shipped("algorithms"))
def test_an_algorithm_has_the_settings_of_its_paper(name: str, composed: Composed) -> None:
    """Estimator, loss, KL and aggregation of the module, including defaults that depend on the estimator."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    config = parser.parse_object({"model": composed("fit", f"ppo {name}")["model"]})
    module = parser.instantiate_classes(config).model
    expected = ALGORITHMS[name.removeprefix("algorithms/")]
    assert {key: attribute(module, key) for key in expected} == expected


def attribute(module: LightningModule, key: str) -> Any:
    """Return the value of a dotted attribute, or the name of its class for an object of this package."""
    value: Any = module
    for part in key.split("."):
        value = getattr(value, part)
    return type(value).__name__ if type(value).__module__.startswith("reft_pl.") else value


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_key_sets_the_zero_stage(stage: int, composed: Composed) -> None:
    trainer = composed("fit", "ppo strategy/zero strategy/two_cpus", "--trainer.strategy.stage", str(stage))["trainer"]
    parser = LightningArgumentParser()
    parser.add_subclass_arguments(Strategy, "strategy")
    strategy = parser.instantiate_classes(parser.parse_object({"strategy": trainer["strategy"]})).strategy
    assert (trainer["accelerator"], trainer["devices"]) == ("cpu", 2)
    assert (strategy.stage, strategy.config["zero_optimization"]["stage"]) == (stage, stage)


@pytest.mark.parametrize("strategy", ["ddp", "zero"])
@pytest.mark.parametrize("after", ["sft", "online_self_training", "reranker"])
def test_every_stage_takes_a_strategy_on_two_cpus(after: str, strategy: str, composed: Composed) -> None:
    """``tests/strategies`` runs such command lines."""
    config = composed("fit", f"{after} strategy/{strategy} strategy/two_cpus")
    assert (setting(config, "trainer.accelerator"), setting(config, "trainer.devices")) == ("cpu", 2)
    assert setting(config, "trainer.strategy") == {"ddp": "ddp", "zero": "ZeRO"}[strategy]


@pytest.mark.parametrize("after", ["sft", "online_self_training", "sample"])
def test_an_engine_samples_for_every_stage(after: str, composed: Composed) -> None:
    """With vLLM installed ``test_vllm_runs.py`` runs it."""
    config = composed("predict" if after == "sample" else "fit", f"{after} rollout/vllm")
    assert setting(config, "model.sampler") == "VLLMSampler"


@pytest.mark.parametrize(("after", "rate", "batch", "epochs"), [("sft", 1e-5, 48, 40), ("ppo", 3e-7, 32, 300)])
@pytest.mark.parametrize("card", ["lora_24gb", "full_80gb", "full_8x80gb"])
def test_a_card_changes_neither_batch_nor_length_of_the_papers_runs(
    after: str, rate: float, batch: int, epochs: int, card: str, composed: Composed
) -> None:
    stage = "sft_7b" if after == "sft" else "reft_7b"
    config = composed("fit", f"{after} {BASE} paper/stages/{stage} gpu/{card}")
    assert (setting(config, "data.batch_size"), setting(config, "trainer.max_epochs")) == (batch, epochs)
    assert setting(config, "model.optimizer.lr") == (1e-4 if card == "lora_24gb" else rate)
    assert (setting(config, "model.policy.lora") is not None) == (card == "lora_24gb")


def test_later_configs_override_earlier_ones_and_keys_override_all(composed: Composed) -> None:
    """The order of ``configs/README.md``."""
    keys = ["--trainer.strategy.stage", "3", "--model.kl.coef", "0.05"]
    config = composed("fit", f"ppo {BASE} paper/stages/reft_7b strategy/zero", *keys)
    assert setting(config, "model.policy.init_from") == "runs/paper-warm-up/hf"
    assert (setting(config, "trainer.strategy.stage"), setting(config, "model.kl.coef")) == (3, 0.05)
    assert setting(config, "data.test") == ["gsm8k"], "a mapping of classes is replaced, not merged"
