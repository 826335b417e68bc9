from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from reft_pl.cli import main
from reft_pl.cli.run_folder import (
    binding,
    checkpoint_to_resume,
    checkpoint_to_test,
    differences,
    dtype_of,
    require_folder,
    results_folder,
)
from reft_pl.errors import UserError


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    for name in ("best", "last"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").touch()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"lr": 1}, "data": {}, "seed_everything": 1, "trainer": 5}))
    return tmp_path


def test_a_fresh_folder_has_nothing_to_resume(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path, {}, None) is None


def test_a_run_folder_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file: name a folder"):
        require_folder(tmp_path / "file" / "b")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root, who may write anywhere, may run this
    with pytest.raises(UserError, match="may not be written to: name another folder"):
        require_folder(tmp_path / "a" / "b")


def test_the_same_settings_resume_with_any_trainer_settings(run_dir: Path) -> None:
    config = {"model": {"lr": 1}, "data": {}, "seed_everything": 1, "trainer": 6}
    last = run_dir / "checkpoints" / "last.ckpt"
    assert checkpoint_to_resume(run_dir, config, None) == checkpoint_to_resume(run_dir, config, "last") == last


@pytest.mark.parametrize("ckpt_path", [None, "last"])
def test_other_settings_do_not_resume(run_dir: Path, ckpt_path: str | None) -> None:
    with pytest.raises(UserError, match=r"model\.lr: 1 there, 2 here"):
        checkpoint_to_resume(run_dir, {"model": {"lr": 2}, "data": {}, "seed_everything": 1}, ckpt_path)


def test_memory_settings_can_change_on_resume(run_dir: Path) -> None:
    def config(tokens: int, sampler: object) -> dict[str, object]:
        return {"model": {"init_args": {"micro_batch_tokens": tokens, "sampler": sampler}}, "data": {"eval_batch_size": tokens}}

    (run_dir / "config.yaml").write_text(yaml.safe_dump(config(512, None)))
    assert checkpoint_to_resume(run_dir, config(64, {"class_path": "X"}), None)


def test_dtype_of_reads_the_saved_config(run_dir: Path) -> None:
    assert dtype_of(run_dir) is None, "a run that does not say"
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"policy": {"dtype": "bfloat16"}}}}))
    assert dtype_of(run_dir) == "bfloat16"
    (run_dir / "config.yaml").unlink()
    assert dtype_of(run_dir) is None


def test_auto_is_saved_as_the_resolved_dtype_and_resumes_in_it(
    overlay: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(fast: str, epochs: int) -> str:
        monkeypatch.setattr("reft_pl.cli.lightning_cli.fastest_dtype", lambda: fast)
        config = overlay("run", trainer={"max_epochs": epochs}, model={"init_args": {"policy": {"dtype": "auto"}}})
        assert main(["fit", "--config", "configs/sft.yaml", "--config", config]) == 0
        saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert saved["model"]["init_args"]["policy"]["dtype"] == "float32"
        return capsys.readouterr().out

    assert "policy.dtype auto: float32, the fastest here" in fit("float32", 1)
    assert "policy.dtype auto: float32, as this run has it" in fit("bfloat16", 2)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    assert {weight.dtype for weight in last["state_dict"].values()} == {torch.float32}
    assert main(["test", "--config", "configs/sft.yaml", "--config", str(tmp_path / "run.yaml")]) == 0
    assert "policy.dtype auto: float32, as this run has it" in capsys.readouterr().out


def test_bfloat16_without_cpu_instructions_warns(
    overlay: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reft_pl.cli.lightning_cli.fastest_dtype", lambda: "float32")
    untrained = ["--config", "configs/sft.yaml", "--config", overlay("none"), "--model.policy.dtype", "bfloat16"]
    assert main(["test", *untrained]) == 2
    assert "which this CPU does not support natively: float32 is many times as fast" in capsys.readouterr().out


def test_the_length_cannot_change_if_the_schedule_depends_on_it() -> None:
    def config(epochs: float | None) -> dict[str, object]:
        schedule = {"kind": "linear", "warmup": 0.0, "epochs": epochs}
        return {"model": {"init_args": {"schedule": schedule}}, "trainer": {"max_epochs": 3, "log_every_n_steps": 1}}

    assert binding(config(None))["trainer"] == {"max_epochs": 3, "max_steps": None, "limit_train_batches": None}
    assert "trainer" not in binding(config(40))


@pytest.mark.parametrize(("name", "message"), [("gone.ckpt", "no checkpoint at"), ("best.ckpt", "weights alone")])
def test_an_unusable_checkpoint_is_refused(run_dir: Path, name: str, message: str) -> None:
    config = {"model": {"lr": 1}, "data": {}, "seed_everything": 1}
    with pytest.raises(UserError, match=message):
        checkpoint_to_resume(run_dir, config, str(run_dir / "checkpoints" / name))


def test_differences_list_changed_and_removed_leaves_but_not_new_settings() -> None:
    assert list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}})) == [("a.c", 2, None)]


@pytest.mark.parametrize("part", ["test", "samples"])
def test_an_added_set_of_questions_does_not_resume(run_dir: Path, part: str) -> None:
    def config(*names: str, **settings: int) -> dict[str, object]:
        return {"model": {}, "data": {part: {name: {"init_args": {"size": 3, **settings}} for name in names}}}

    (run_dir / "config.yaml").write_text(yaml.safe_dump(config("one", "two")))
    assert checkpoint_to_resume(run_dir, config("one", "two", setting_of_a_newer_version=1), None)
    with pytest.raises(UserError, match=rf"data\.{part}\.third: None there"):
        checkpoint_to_resume(run_dir, config("one", "two", "third"), None)


def test_an_added_argument_of_a_custom_class_is_a_difference() -> None:
    def config(**settings: int) -> dict[str, object]:
        return {"model": {"init_args": {"optimizer": {"dict_kwargs": settings}}}}

    assert list(differences(config(a=1), config(a=1, b=2))) == [("model.init_args.optimizer.dict_kwargs.b", None, 2)]


def test_meanings_of_ckpt_path(run_dir: Path, tmp_path: Path) -> None:
    assert checkpoint_to_test(run_dir, None) == run_dir / "checkpoints" / "best.ckpt"
    assert checkpoint_to_test(run_dir, "last") == run_dir / "checkpoints" / "last.ckpt"
    assert checkpoint_to_test(run_dir, "owner/model") is None
    with pytest.raises(UserError, match="reft-pl fit"):
        checkpoint_to_test(tmp_path / "nothing", None)
    with pytest.raises(UserError, match="check --ckpt_path"):
        checkpoint_to_test(run_dir, "gone.ckpt")


def test_results_of_other_weights_go_to_separate_folders() -> None:
    run = Path("runs/x")
    assert results_folder(run, None) == results_folder(run, "best") == run
    assert results_folder(run, "models/smollm2-135m/") == run / "tests" / "models--smollm2-135m"


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
@pytest.mark.parametrize(("flag", "value"), [("run_dir", ""), ("run_dir", "  "), ("ckpt_path", "")])
def test_an_empty_path_is_not_the_working_folder(
    verb: str, flag: str, value: str, overlay: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().iterdir())
    assert main([verb, "--config", "configs/sft.yaml", "--config", overlay("run"), f"--{flag}={value}"]) == 2
    assert f"--{flag} is empty, perhaps from an unset shell variable" in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("stage", "monitor", "names"),
    [("sft", "val/top", "logs val/top1"), ("ppo", "val/loss", "logs val/top1"), ("sft", "", "is empty")],
)
def test_a_misspelt_monitor_is_refused_before_training(
    stage: str, monitor: str, names: str, overlay: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = overlay("run", checkpoints={"monitor": monitor})
    assert main(["fit", "--config", f"configs/{stage}.yaml", "--config", config]) == 2
    assert names in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_weights_that_are_not_finite_are_one_sentence(
    overlay: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = overlay("run", trainer={"max_epochs": 1, "limit_val_batches": 0})
    verb = ["--config", "configs/sft.yaml", "--config", config]
    assert main(["fit", *verb]) == 0
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    broken = next(name for name in checkpoint["state_dict"] if name.endswith("norm.weight"))
    checkpoint["state_dict"][broken][0] = float("nan")
    torch.save(checkpoint, best)
    assert main(["test", *verb]) == 2
    assert f"{best} holds NaN or infinity in {broken}" in capsys.readouterr().err
    file = tmp_path / "run" / "hf" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][0] = float("inf")
    save_file(weights, file, {"format": "pt"})
    for command in (["test", "--ckpt_path", str(file.parent)], ["fit", f"--model.policy.init_from={file.parent}"]):
        more = [] if command[0] == "test" else ["--model.policy.from_scratch=false", "--run_dir", str(tmp_path / "other")]
        assert main([command[0], *verb, *command[1:], *more]) == 2
        assert f"{file.parent} holds NaN or infinity in model.norm.weight" in capsys.readouterr().err
