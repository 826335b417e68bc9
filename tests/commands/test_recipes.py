from pathlib import Path

import pytest

from reft_pl.cli import main
from reft_pl.commands.recipes import WIDTH, needs, purpose, recipes

CONFIGS = Path(__file__).parents[2] / "configs"


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the rows of the list, without titles and legend."""
    assert main(["recipes", *words]) == 0
    return capsys.readouterr().out.split("\n\n")[0].splitlines()[1:]


def test_every_shipped_config_is_one_line_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys)
    names = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")]
    assert sorted(line.split()[0] for line in lines) == sorted(names)
    assert max(map(len, lines)) <= WIDTH
    assert not any("\x1b" in line for line in lines)
    assert lines[0].startswith("offline_self_training "), "stages come before overlays"


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_every_header_begins_with_a_purpose(recipe) -> None:
    assert recipe.purpose
    assert recipe.purpose[-1] not in ".:,("
    assert "reft-pl fit" not in recipe.purpose


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sft", ()),
        ("ppo", ("runs/sft",)),
        ("reranker", ("runs/ppo", "runs/sft")),
        ("algorithms/grpo", ("a PPO config",)),
        ("data/svamp_python", ("2 files in data/",)),
        ("data/asdiv", ("data/asdiv.jsonl",)),
        ("data/gsm_hard", ("the hub",)),
        ("gpu/full_8x80gb", ("8 GPUs",)),
        ("gpu/lora_24gb", ("1 GPU",)),
        ("strategy/zero", ("GPUs",)),
        ("strategy/two_cpus", ()),
        ("models/smollm2_135m", ("models/smollm2-135m",)),
        ("rollout/vllm_server", ("vLLM",)),
        ("paper/base_model", ("the hub",)),
        ("paper/published_policy", ("the hub", "data/gsm8k_test_set.json")),
        ("paper/stages/offline_7b", ("sft_7b", "data/self_training")),
    ],
)
def test_needs_follow_from_the_config(name: str, expected: tuple[str, ...]) -> None:
    assert needs(name, (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")) == expected


def test_a_purpose_ends_at_a_colon_and_not_at_an_abbreviation() -> None:
    assert purpose("# Dr. GRPO (arXiv 2503.20783),\n# which is GRPO: like this.\nrun_dir: x") == "Dr. GRPO, which is GRPO"


def test_words_filter_the_list_by_name_header_and_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert {line.split()[0] for line in listed(capsys, "REINFORCE++")} == {
        "algorithms/reinforce",
        "algorithms/reinforce_baseline",
    }
    assert [line.split()[0] for line in listed(capsys, "svamp", "python")] == ["data/svamp_python"]
    assert [line.split()[0] for line in listed(capsys, "clip-higher")] == ["algorithms/dapo"], "of the first paragraph"
    assert all(line.startswith("gpu/") for line in listed(capsys, "gpu/"))
    assert main(["recipes", "no-such-word"]) == 2
    assert "`reft-pl recipes` lists them all" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["algorithms/grpo", "configs/algorithms/grpo.yaml", "ppo"])
def test_a_name_prints_the_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", name]) == 0
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    assert capsys.readouterr().out == (CONFIGS / f"{plain}.yaml").read_text(encoding="utf-8")
