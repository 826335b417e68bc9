import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reft_pl.cli import main

Overlay = Callable[..., str]


def test_the_chain_of_shipped_configs(overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warm up, reinforce, test and compare with the README's commands, on a model of a few thousand weights."""
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft")]) == 0
    warm_up = tmp_path / "sft" / "hf"
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", overlay("ppo", init_from=warm_up)]) == 0
    for stage in ("sft", "ppo"):
        run = tmp_path / stage
        assert main(["test", "--config", f"configs/{stage}.yaml", "--config", str(tmp_path / f"{stage}.yaml")]) == 0
        assert f"weights of {run / 'checkpoints' / 'best.ckpt'}" in capsys.readouterr().out
        results = json.loads((run / "results.json").read_text())
        assert results["test"]["ordinary"]["n"] == results["test"]["unseen"]["n"] == 4
        assert results["fit"]["epochs"] == 2
        assert (run / "config.yaml").exists()
        assert list(run.glob("events.out.tfevents.*"))
        model = AutoModelForCausalLM.from_pretrained(run / "hf")
        tokenizer = AutoTokenizer.from_pretrained(run / "hf")
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        description = json.loads((run / "hf" / "reft.json").read_text())
        assert description["stage"] == stage
        assert description["format"]["class_path"] == "reft_pl.formats.PythonProgram"
    assert (tmp_path / "ppo" / "hf" / "value_head.safetensors").exists()
    shutil.rmtree(warm_up)  # a finished run is tested without what it started from
    assert main(["test", "--config", "configs/ppo.yaml", "--config", str(tmp_path / "ppo.yaml")]) == 0
    assert main(["compare", str(tmp_path / "sft"), str(tmp_path / "ppo"), "--markdown"]) == 0
    assert "| ordinary |" in capsys.readouterr().out


def test_any_model_folder_can_be_tested(overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = overlay("sft", trainer={"max_epochs": 1})
    assert main(["fit", "--config", "configs/sft.yaml", "--config", config]) == 0
    folder = tmp_path / "sft" / "hf"
    assert main(["test", "--config", "configs/sft.yaml", "--config", config, "--ckpt_path", str(folder)]) == 0
    assert f"weights of {folder}" in capsys.readouterr().out
    assert not (tmp_path / "sft" / "predictions").exists(), "the run's own results stay its own"
    assert len(list((tmp_path / "sft" / "tests").glob("*/results.json"))) == 1


@pytest.mark.slow
def test_testing_with_other_settings_than_in_training_warns(
    overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(["fit", *command, "--trainer.enable_progress_bar", "false"]) == 0
    assert "training epoch" not in capsys.readouterr().out
    assert main(["test", *command]) == 0
    assert "was trained with" not in caplog.text
    assert main(["test", *command, "--ckpt_path", str(tmp_path / "sft" / "hf"), "--data.max_tokens", "210"]) == 0
    assert "was trained with max_tokens=200 and is used here with 210" in caplog.text


def test_a_finished_run_is_not_trained_again_and_other_settings_are_refused(
    overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(command) == 0
    before = torch.load(tmp_path / "sft" / "checkpoints" / "last.ckpt", weights_only=True)
    assert main(command) == 0
    assert "resuming from" in capsys.readouterr().out
    after = torch.load(tmp_path / "sft" / "checkpoints" / "last.ckpt", weights_only=True)
    assert before["global_step"] == after["global_step"] == 3
    assert main([*command, "--data.batch_size", "2"]) == 2
    assert "data.batch_size: 4 there, 2 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--trainer.gradient_clip_val", "1"], "gradient clipping"),
        (["--model.optimizer.lr", "-1"], "check model.optimizer"),
        (["--model.micro_batch_tokens", "0"], "must be positive"),
        (["--trainer.precision", "bf16-mixed"], "set model.policy.dtype"),
        (["--trainer.accelerator", "warp"], "warp"),
        (["--trainer.strategy", "warp"], "warp"),
        (["--trainer.strategy", "ddp_spawn"], "which the modules do not support"),
        (["--trainer.val_check_interval", "1000"], "val_check_interval"),
        (["--run_dir", __file__], "is a file: name a folder"),
        (["--run_dir", f"{__file__}/x/y"], "test_main.py is a file: name a folder"),
        (["--data.max_tokens", "5000"], "512 positions: lower data.max_tokens"),
        (["--model.schedule.warmup", "2"], "between 0 and 1"),
        (["--checkpoints.every_n_batches", "0"], "at least 1"),
        (["--checkpoints.monitor", "val/loss"], "the validation of SFTModule logs val/top1: set it to one of these"),
        (["--ckpt_path", "nothing.ckpt"], "there is no checkpoint at nothing.ckpt"),
        (["--ckpt_path", "last"], "there is no checkpoint at"),
    ],
)
def test_a_user_error_is_one_sentence(
    args: list[str], sentence: str, overlay: Overlay, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft"), *args]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_test_results_are_dropped_when_the_best_weights_change(overlay: Overlay, tmp_path: Path) -> None:
    config = ["--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(["fit", *config]) == 0
    assert main(["test", *config]) == 0
    assert (tmp_path / "sft" / "predictions").exists()
    best = tmp_path / "sft" / "checkpoints" / "last.ckpt"
    state = torch.load(best, weights_only=True)
    next(v for k, v in state["callbacks"].items() if "RunCheckpoints" in k)["best_score"] = -1.0
    torch.save(state, best)
    assert main(["fit", *config, "--trainer.max_epochs", "2"]) == 0
    assert not (tmp_path / "sft" / "predictions").exists()
    assert "test" not in json.loads((tmp_path / "sft" / "results.json").read_text())


def test_validate_saves_its_figure(overlay: Overlay, tmp_path: Path) -> None:
    config = ["--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(["fit", *config]) == 0
    assert main(["validate", *config]) == 0
    assert 0 <= json.loads((tmp_path / "sft" / "results.json").read_text())["validation"]["val/top1"] <= 1


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_an_untrained_run_is_not_tested(verb: str, overlay: Overlay, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--config", "configs/sft.yaml", "--config", overlay("none")]) == 2
    assert "run `reft-pl fit` with this config first" in capsys.readouterr().err


def test_ppo_without_a_warm_up_names_the_command_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # and the shipped configs are found all the same
    assert main(["fit", "--config", "configs/ppo.yaml"]) == 2
    assert "reft-pl fit --config configs/sft.yaml" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_checkpoint_of_another_stage_is_refused(overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]) == 0
    config = overlay("ppo", init_from=tmp_path / "sft" / "hf")
    checkpoint = str(tmp_path / "sft" / "checkpoints" / "last.ckpt")
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", config, "--ckpt_path", checkpoint]) == 2
    assert "written by 'sft', not by 'ppo'" in capsys.readouterr().err


def test_a_damaged_or_foreign_checkpoint_is_one_sentence(
    overlay: Overlay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", "configs/sft.yaml", "--config", overlay("sft", trainer={"max_epochs": 1})]
    assert main(["fit", *config]) == 0
    last = tmp_path / "sft" / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    name, weight = next((k, v) for k, v in state["state_dict"].items() if v.ndim == 2)
    state["state_dict"][name] = torch.zeros(weight.shape[0], weight.shape[1] + 1)
    other = tmp_path / "other.ckpt"
    torch.save(state, other)
    torch.save({"weights": 1}, tmp_path / "foreign.ckpt")
    last.write_bytes(last.read_bytes()[:1000])
    capsys.readouterr()
    assert main(["test", *config, "--ckpt_path", str(other)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"reft-pl test: {other} holds another model ({name}: {(weight.shape[0], weight.shape[1] + 1)}")
    assert main(["test", *config, "--ckpt_path", str(tmp_path / "foreign.ckpt")]) == 2
    assert "foreign.ckpt is not a checkpoint of a run: name another with --ckpt_path" in capsys.readouterr().err
    assert main(["fit", *config]) == 2
    assert f"reft-pl fit: {last} is damaged or not a checkpoint (PytorchStreamReader" in capsys.readouterr().err


def test_a_system_error_is_one_sentence(
    overlay: Overlay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--config", "configs/sft.yaml", "--config", overlay("sft")]

    def forbidden(path: Path, text: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("reft_pl.cli.lightning_cli.write_aside", forbidden)  # root, whom nothing is forbidden, may run this
    assert main(command) == 2
    assert "config.yaml cannot be read or written (Permission denied): change its permissions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["--trainer.max_epocs", "3"], "did you mean 'trainer.max_epochs'?"),
        (["--data.batchsize", "3"], "did you mean 'data.batch_size'?"),
        (["--model.kl.coeff", "0.1"], "did you mean 'model.kl.coef'?"),
        (["--model.policy.init_form", "x"], "no key 'model.policy.init_form'; did you mean 'model.policy.init_from'?"),
        (["--model.optimizer.lrr", "1"], "no key 'model.optimizer.lrr'; did you mean 'model.optimizer.lr'?"),
        (["--model.optimizer.learning_rate", "1"], "MasterAdamW takes lr, betas, eps, weight_decay"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs must be of type int, and is many"),
        (["--model.kl.coef", "[1]"], "model.kl.coef must be of type float, and is [1]"),
        (["--config", "configs/pppo.yaml"], "configs/pppo.yaml"),
    ],
)
def test_an_unknown_key_names_the_nearest(args: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/ppo.yaml", *args]) == 2
    message = capsys.readouterr().err
    assert hint in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("overlay_text", "sentence"),
    [
        ("rundir: x", "there is no key 'rundir'; did you mean 'run_dir'?"),
        ("checkpoints: {every_n_batch: 3}", "did you mean 'checkpoints.every_n_batches'?"),
        ("model: {init_args: {sampler: {init_args: {maxrows: 3}}}}", "did you mean 'model.sampler.max_rows'?"),
        ("model: {init_args: {policy: {init_form: x}}}", "did you mean 'model.policy.init_from'?"),
        ("model: {init_args: {schedule: {warmpu: 0.1}}}", "did you mean 'model.schedule.warmup'?"),
        ("model: {class_path: PPOModul}", "model names a class 'PPOModul' that does not exist; did you mean PPOModule?"),
        ("data: {train: [{class_path: StorySourse}]}", "did you mean StorySource?"),
        ("data: {train: [{class_path: StorySource, init_args: {siz: 3}}]}", "did you mean 'data.train[0].size'?"),
        ("trainer: {callbacks: [{class_path: reft_pl_callbacks.KLGard}]}", "did you mean reft_pl_callbacks.KLGuard?"),
    ],
)
def test_a_misspelt_overlay_is_one_sentence(
    overlay_text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o.yaml").write_text(overlay_text)
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", str(tmp_path / "o.yaml")]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("as_reward", [True, False], ids=["reward", "callback"])
@pytest.mark.parametrize(
    ("text", "named", "sentence"),
    [
        (None, "my_gone.A", "names my_gone.A, but there is no module 'my_gone': put my_gone.py into the working folder"),
        ("class A: pass", "my_fiel.A", "there is no module 'my_fiel': did you mean my_file.A?"),
        ("x = 1\ndef f(:", "my_file.A", "my_file.py (SyntaxError: invalid syntax)"),
        ("import not_there", "my_file.A", "my_file.py (ModuleNotFoundError: No module named 'not_there')"),
        ("x = 1\ny = x / 0", "my_file.A", "fix line 2 of {folder}/my_file.py (ZeroDivisionError: division by zero)"),
        (
            "class A: pass",
            "my_file.A",
            "names my_file.A, which is not a {base}: name a class that inherits from {package}.{base}",
        ),
        ("class A: pass", "my_file.B", "names a class 'B' that does not exist"),
    ],
)
def test_a_class_path_that_cannot_be_imported_is_one_sentence(
    text: str | None,
    named: str,
    sentence: str,
    as_reward: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_file", raising=False)
    if text is not None:
        (tmp_path / "my_file.py").write_text(text)
    (tmp_path / "o.yaml").write_text(f"trainer: {{callbacks+: [{{class_path: {named}}}]}}")
    args = ["--model.reward", named] if as_reward else ["--config", "o.yaml"]
    assert main(["fit", "--config", "configs/ppo.yaml", *args]) == 2
    key, package, base = (
        ("model.reward", "reft_pl.reward.base", "RewardFunction")
        if as_reward
        else ("trainer.callbacks[0]", "lightning.pytorch.callbacks.callback", "Callback")
    )
    message = capsys.readouterr().err
    assert message.startswith(f"reft-pl: {key} names ")
    assert sentence.format(folder=tmp_path, base=base, package=package) in message
    assert message.count("\n") == 1
    assert "Subtypes" not in message


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["--model.optimizer.betas", "[0.8, 0.9]", "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"],
            "SGD takes the place of MasterAdamW, which drops 'betas'",
        ),
        (["--model", "SFTModule"], "SFTModule takes the place of PPOModule, which drops 'kl': (coef=0.01), 'ppo_epochs': 1"),
    ],
)
def test_settings_lost_with_a_switched_class_are_logged(
    args: list[str], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", "--config", "configs/ppo.yaml", *args, "--print_config"]) == 0
    assert caplog.text.count(sentence) == 1


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    assert "did you mean 'fit'?" in capsys.readouterr().err


def test_version_and_help_answer_without_heavy_imports() -> None:
    code = "import sys; from reft_pl.cli import main; main(['--version']); main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_every_setting_of_ppo_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.help", "PPOModule"]) == 0
    printed = capsys.readouterr().out
    for line in printed.split("\n  --")[1:]:
        key, _, rest = line.partition("\n")
        text = (key + rest).split("(type:")[0].split("(required")[0]
        assert len(text.split()) > 3 or "CONFIG" in key or ".help" in key, f"no help for {key}"
