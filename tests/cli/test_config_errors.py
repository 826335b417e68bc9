"""User errors on the command line and in configs: one sentence with the valid values or the nearest name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import reft_pl.cli.run_verb  # noqa: F401 (registers the classes that configs name)
from reft_pl.cli import main
from reft_pl.cli.config_errors import nearest, no_class
from reft_pl.cli.default_classes import DEFAULT_CLASSES
from reft_pl.cli.setting_types import accepts_null, bases, classes, settings_of
from reft_pl.models.settings import PolicySettings
from reft_pl.modules import OnlineSelfTrainingModule, PPOModule, RerankerModule, SamplingModule, SFTModule

MODULES = (PPOModule, SFTModule, OnlineSelfTrainingModule, RerankerModule, SamplingModule)
OWNERS = {
    **{f"reft_pl.modules.{module.__name__}": "model." for module in MODULES},
    "reft_pl.data.datamodule.ReasoningDataModule": "data.",
    "lightning.pytorch.Trainer": "trainer.",
}


def class_keys() -> list[tuple[str, str, Any]]:
    """Return every key that names a class, with its owner and type."""
    return [(owner, name, hint) for owner in OWNERS for name, hint in settings_of(owner).items() if bases(hint)]


def sentence(args: list[str], capsys: pytest.CaptureFixture[str], stage: str = "ppo") -> str:
    assert main(["fit", "--config", f"configs/{stage}.yaml", *args]) == 2
    message = capsys.readouterr().err
    lines = [line for line in message.splitlines() if line.startswith("reft-pl")]
    assert len(lines) == 1
    assert len(lines[0]) < 420
    assert not any(word in message for word in ("Traceback", "Subtypes", "NestedArg", "Namespace(", "<class"))
    return lines[0]


def test_class_keys_are_found() -> None:
    names = {name for _, name, _ in class_keys()}
    assert names >= {
        "reward",
        "advantages",
        "policy_loss",
        "optimizer",
        "sampler",
        "sandbox",
        "format",
        "train",
        "test",
        "logger",
    }


@pytest.mark.parametrize(("owner", "name", "hint"), class_keys(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_class_name_one_letter_off_is_suggested(owner: str, name: str, hint: Any) -> None:
    for path in classes(hint):
        short = path.rsplit(".", 1)[-1]
        for misspelt in (f"{short}{short[-1]}", short[:-1], short[:1] + short[2:], f"{short[:-1]}x", short.swapcase()):
            if misspelt not in {known.rsplit(".", 1)[-1] for known in classes(hint)}:
                assert path in nearest(misspelt, classes(hint)).split(" or "), misspelt
                assert "; did you mean " in no_class(misspelt, hint)


@pytest.mark.parametrize(
    ("key", "misspelt", "near"),
    [
        ("model", "PPOModle", "PPOModule"),
        ("model.advantages", "GRPOO", "GRPO"),
        ("model.advantages", "grpoo", "GRPO"),
        ("model.reward", "AnswerRewrd", "AnswerReward"),
        ("model.policy_loss", "PPOClp", "PPOClip"),
        ("model.optimizer", "MasterAdmW", "MasterAdamW"),
        ("model.optimizer", "SDG", "SGD"),
        ("model.sampler", "VLLMSamplr", "VLLMSampler"),
        ("model.sandbox", "CPythonSandbx", "CPythonSandbox"),
        ("data.format", "PythonProgam", "PythonProgram"),
        ("trainer.logger", "TensorBordLogger", "TensorBoardLogger"),
        ("trainer.callbacks", "KLGard", "reft_pl_callbacks.KLGuard"),
    ],
)
def test_a_misspelt_class_name_on_the_command_line(
    key: str, misspelt: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = sentence([f"--{key}", misspelt], capsys)
    assert message == f"reft-pl: {key} names a class {misspelt!r} that does not exist; did you mean {near}?"


@pytest.mark.parametrize("module", MODULES)
def test_null_means_the_default_class_of_the_command_line(module: Any) -> None:
    """For every setting where null means a class, the module makes that class."""
    arguments = {"policy": PolicySettings(init_from="x")} if module is not RerankerModule else {}
    hints = settings_of(f"reft_pl.modules.{module.__name__}")
    standing = {
        name: DEFAULT_CLASSES[base]
        for name, hint in hints.items()
        for base in bases(hint)
        if accepts_null(hint) and base in DEFAULT_CLASSES
    }
    if module is RerankerModule:
        assert not standing
        return
    made = module(**arguments)
    for name, cls in standing.items():
        holders = (made, made.solver)
        names = (name, f"{name}_function", "loss")
        kept = next(getattr(holder, n) for holder in holders for n in names if hasattr(holder, n))
        assert type(kept) is cls


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("ppo", "model.reward.truncated", "zero"),
        ("ppo", "model.reward.partial", "0.2"),
        ("ppo", "model.sandbox.timeout_seconds", "5"),
        ("ppo", "model.advantages.lam", "0.9"),
        ("ppo", "model.policy_loss.clip_range", "0.1"),
        ("sft", "model.sampler.max_rows", "8"),
        ("sft", "model.sandbox.timeout_seconds", "5"),
        ("sft", "model.policy.lora.r", "8"),
        ("online_self_training", "model.reward.partial", "0.2"),
        ("online_self_training", "model.sampler.draft_tokens", "0"),
    ],
)
def test_settings_under_a_null_default(
    stage: str, key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line, and in an overlay that names no class."""
    assert main(["fit", "--config", f"configs/{stage}.yaml", f"--{key}", value, "--print_config"]) == 0
    printed = capsys.readouterr().out
    leaf = key.rsplit(".", 1)[-1]
    assert f"{leaf}: {value}" in printed
    _, group, *rest = key.split(".")
    inner = f"{{{leaf}: {value}}}" if len(rest) == 1 else f"{{{rest[0]}: {{{leaf}: {value}}}}}"
    (tmp_path / "o.yaml").write_text(f"model: {{init_args: {{{group}: {inner}}}}}")
    assert main(["fit", "--config", f"configs/{stage}.yaml", "--config", str(tmp_path / "o.yaml"), "--print_config"]) == 0
    assert f"{leaf}: {value}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("set_before", "key"),
    [("--model.policy.lora.r=4", "model.policy.lora"), ("--model.schedule.epochs=4", "model.schedule.epochs")],
)
def test_null_undoes_a_nested_setting(set_before: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/sft.yaml", set_before, f"--{key}", "null", "--print_config"]) == 0
    assert f"{key.rsplit('.', 1)[-1]}: null" in capsys.readouterr().out


def test_replacing_a_default_class_keeps_its_settings(caplog: pytest.LogCaptureFixture) -> None:
    overlays = ["--config", "configs/algorithms/grpo.yaml", "--model.policy_loss", "SequenceClip"]
    assert main(["fit", "--config", "configs/ppo.yaml", *overlays, "--print_config"]) == 0
    assert "takes the place of" not in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--model.policy.dtype float16", "model.policy.dtype must be one of 'auto', 'bfloat16', 'float32', and is float16"),
        ("--model.schedule.kind cosine", "model.schedule.kind must be one of 'constant', 'linear', and is cosine"),
        ("--data.on_too_long skip", "data.on_too_long must be one of 'error', 'drop', and is skip"),
        ("--model.reward.truncated zer", "model.reward.truncated must be one of 'scored', 'zero', 'partial', and is zer"),
        ("--model.kl.place los", "model.kl.place must be one of"),
        (
            "--model.aggregation mean",
            "model.aggregation must be one of 'sequence', 'token', 'sequence_sum', 'constant', and is mean",
        ),
        ("--model.policy.lora true", "model.policy.lora must be a group of settings (r, alpha, "),
        ("--model.ppo_epochs 1.5", "model.ppo_epochs must be of type int, and is 1.5"),
        ("--model.mask_truncated maybe", "model.mask_truncated must be true or false, and is maybe"),
        ("--data.train 3", "data.train must be a list, and is 3"),
        ("--model.reward.truncatd zero", "did you mean 'model.reward.truncated'?"),
        ("--trainer.logger CSVLogger", "trainer.logger is a CSVLogger, which needs save_dir: give --trainer.logger.save_dir"),
        ("--trainer.logger.name x", "trainer.logger.name is a setting of a class, but trainer.logger names no class"),
        ("--model null", "model is missing: set it in a config (--config) or give --model"),
        ("--data null", "data is a section, not null"),
        ("--trainer null", "trainer is a section, not null"),
        ("--checkpoints null", "checkpoints is a section, not null"),
        ("--model.optimizer null", "model.optimizer is null, but must be a class (ASGD, "),
        ("--model.schedule null", "model.schedule is null, but is a group of settings (kind, warmup, epochs)"),
        ("--model.kl null", "model.kl is null, but is a group of settings (coef, "),
        ("--data.format null", "data.format"),
        ("--data.batch_size null", "data.batch_size must be of type int, and is null"),
        ("--model.optimizer.lr x", "model.optimizer.lr must be of type float, and is x"),
        ("--model.optimizer.lr nan", "model.optimizer.lr must be of type float, and is nan"),
        ("--model.optimizer.offload maybe", "model.optimizer.offload must be true or false, and is maybe"),
        ("--model.optimizer torch.optim.SGD --model.optimizer.momentum x", "model.optimizer.momentum must be of type float"),
        ("--model.sampler.max_rows null", "model.sampler.max_rows is null, but must be of type int"),
        ("--model.optimizer.lr null", "model.optimizer.lr is null, but must be of type float"),
        ("--data.train [{class_path:StorySource,init_args:{size:3}}]", "in braces YAML wants a space after each colon"),
        ("--data.train C:/x", "data.train must be a list, and is C:/x"),
        ("--checkpoints.keep 3", "there is no key 'checkpoints.keep'; checkpoints takes every_n_batches, monitor"),
        ("--trainer.batch_size 3", "did you mean 'data.batch_size'?"),
        ("--data.seed x", "data.seed always equals seed_everything: set --seed_everything instead"),
        ("--data.seed 4", "data.seed always equals seed_everything: set --seed_everything instead"),
        ("--data.tokenizer x", "data.tokenizer always equals model.policy.init_from: set --model.policy.init_from instead"),
        ("--data.trust_remote_code maybe", "data.trust_remote_code always equals model.policy.trust_remote_code: set --"),
        ("--trainer.default_root_dir x", "trainer.default_root_dir always equals run_dir: set --run_dir instead"),
        ("--config nope.yaml", "there is no config "),
        ("--run_dir null", "run_dir is null: name the folder of this run"),
        ("--run_dir None", "run_dir is None: name the folder of this run"),
    ],
)
def test_a_wrong_value_lists_the_valid_ones(args: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in sentence(args.split(), capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: null", "o.yaml: model is null, but it is a section: leave it out, or write settings under it"),
        ("data:\n  # batch_size: 3\n", "o.yaml: data is null"),
        ("trainer: null", "o.yaml: trainer is null"),
        ("checkpoints: null", "o.yaml: checkpoints is null"),
        ("model: {init_args: null}", "o.yaml: model.init_args is null"),
        ("model: {class_path: null}", "o.yaml: model.class_path is null"),
        ("data: {train: [{class_path: StorySource, init_args: null}]}", "o.yaml: data.train.init_args is null"),
        ("model: {init_args: {kl: null}}", "model.kl is null, but is a group of settings"),
        ("model: {init_args: {micro_batch_tokens: null}}", "model.micro_batch_tokens is null, but must be of type int"),
        ("model: {init_args: {sampler: {init_args: {max_rows: null}}}}", "model.sampler.max_rows"),
        ("data: {format: null}", "data.format is missing"),
        ("data: {batch_size: null}", "data.batch_size is null, but must be of type int"),
        ("data: {train: {class_path: StorySource}}", "data.train must be a list"),
        ("data: {test: [{class_path: StorySource}]}", "data.test must be a mapping"),
        ("data: {test: {ordinary: null}}", "data.test.ordinary must be a class (AuthorsJson, "),
        ("data: {test: {ordinary: [1]}}", "data.test.ordinary must be a class (AuthorsJson, "),
        ("data: {test: {ordinary: {class_path: Nope}}}", "data.test.ordinary names a class 'Nope'"),
        ("data: {test: {ordinary: {class_path: no_module.Nope}}}", "data.test.ordinary names no_module.Nope, but there is no"),
        ("data: {test: {a: {class_path: StorySource, init_args: {size: x}}}}", "data.test.a.size must be of type int"),
        (
            "data: {test: {a: {class_path: StorySource, init_args: {sizee: 3}}}}",
            "'data.test.a.sizee'; did you mean 'data.test.a.size'?",
        ),
        (
            "data: {test: {a: {class_path: Gsm8kOfficial, init_args: {path: x}}, b: {class_path: HFDatasetSource}}}",
            "needs path: set data.test.b.path",
        ),
        ("data: {train: [{class_path: StorySource}, null]}", "data.train[1] must be a class (AuthorsJson, "),
        (
            "data: {train: [{class_path: StorySource, init_args: {size: x}}]}",
            "data.train[0].size must be of type int, and is x",
        ),
        ("data: {samples: {train: null}}", "data.samples.train must be of type str or a list, and is null"),
        ("trainer: {callbacks: [null]}", "trainer.callbacks[0] must be a class ("),
        ("model: [1", "o.yaml is not valid YAML at line 1, column"),
        ("a: b: c", "o.yaml is not valid YAML at line 1, column"),
        ("model:\n\tx: 1", "o.yaml is not valid YAML at line 2, column"),
        ("- a", "o.yaml holds a list, but a config is a mapping"),
        ("model: 3", "o.yaml: model is 3, but it is a section"),
        ("trainer: [1]", "o.yaml: trainer is [1], but it is a section"),
    ],
)
def test_an_invalid_config_is_one_sentence(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o.yaml").write_text(text)
    assert message in sentence(["--config", str(tmp_path / "o.yaml")], capsys)


@pytest.mark.parametrize("epochs", [0, -1])
def test_validation_every_zero_epochs(epochs: int, capsys: pytest.CaptureFixture[str]) -> None:
    message = sentence(["--trainer.check_val_every_n_epoch", str(epochs)], capsys, "sft")
    assert "trainer.check_val_every_n_epoch is" in message
    assert "set data.validation to null" in message


@pytest.mark.parametrize("limit", [{"max_epochs": 0}, {"limit_train_batches": 0}], ids=str)
def test_a_run_without_a_batch_does_not_succeed(
    limit: dict[str, int], overlay: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no batch was trained" in sentence(["--config", overlay("sft", trainer=limit)], capsys, "sft")


def test_a_logger_with_a_missing_package(capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    message = sentence(["--trainer.logger", "WandbLogger"], capsys)
    assert "WandbLogger needs a package that is not installed" in message
    assert "wandb" in message
