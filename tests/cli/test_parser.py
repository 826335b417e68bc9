from pathlib import Path

import pytest

from reft_pl.cli import main
from reft_pl.cli.parser import resolve_configs
from reft_pl.errors import UserError


@pytest.mark.parametrize("text", ["", "# run_dir: x\n# seed_everything: 2\n", "---\n"])
def test_an_empty_overlay_changes_nothing(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o.yaml").write_text(text)
    printed = []
    for overlay in ([], ["--config", str(tmp_path / "o.yaml")], [f"--config={tmp_path / 'o.yaml'}"]):
        assert main(["fit", "--config", "configs/ppo.yaml", *overlay, "--print_config"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]


@pytest.mark.parametrize(("text", "holds"), [("- a\n- b\n", "a list"), ("run_dir", "'run_dir'"), ("3", "3")])
def test_a_config_that_is_not_a_mapping_is_named(
    text: str, holds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "o.yaml"
    path.write_text(text)
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"reft-pl fit: {path} holds {holds}, but a config is a mapping: write lines of the form `key: value`\n"
    )
    with pytest.raises(UserError, match="a config is a mapping"):
        resolve_configs([f"-c={path}"])


@pytest.mark.parametrize("setting", ["offload_optimizer", "offload_parameters"])
def test_zero_has_no_setting_that_deepspeed_refuses(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    """DeepSpeed offloads its own optimizers alone; ``MasterAdamW`` offloads itself."""
    words = ["fit", "--config", "configs/sft.yaml", "--config", "configs/strategy/zero.yaml"]
    assert main([*words, f"--trainer.strategy.init_args.{setting}", "true"]) == 2
    assert setting in capsys.readouterr().err


def test_other_arguments_are_kept() -> None:
    args = ["--data.batch_size=3", "--config", "gone.yaml", "--model.policy.init_from", "a=b", "--config"]
    assert resolve_configs(args) == args
