"""The reference of PPO: a teacher in place of the policy's start."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from reft_pl.cli import main
from reft_pl.errors import UserError
from reft_pl.models.loading import load_policy
from reft_pl.models.optim import MasterAdamW
from reft_pl.models.scoring import score
from reft_pl.models.settings import LoRASettings, PolicySettings
from reft_pl.rl.estimators import GRPO, Distillation
from reft_pl.rl.kl import KLPenalty
from tests.modules.iteration import iterate

Overlay = Callable[..., str]


@pytest.fixture
def trained(overlay: Overlay, tmp_path: Path) -> Callable[..., str]:
    """Trains models with the tokenizer of the policy, by seed."""

    def train(seed: int, epochs: int = 1) -> str:
        config = overlay(f"sft-{seed}", trainer={"max_epochs": epochs})
        options = ["--seed_everything", str(seed), "--model.optimizer.lr", "2e-2"]
        assert main(["fit", "--config", "configs/sft.yaml", "--config", config, *options]) == 0
        return str(tmp_path / f"sft-{seed}" / "hf")

    return train


@pytest.mark.parametrize("lora", [None, LoRASettings(r=2)], ids=["whole", "lora"])
def test_log_probabilities_are_compared_with_the_teacher(
    trained: Callable[..., str], micro_model: Path, tmp_path: Path, lora: LoRASettings | None
) -> None:
    teacher = trained(1)
    policy = PolicySettings(trained(2), dtype="float32", lora=lora)
    _, recorder = iterate(tmp_path, micro_model, teacher=teacher, policy=policy)
    (rollout,) = recorder.rollouts
    expected = score(load_policy(PolicySettings(teacher, dtype="float32")), rollout.tokens)
    torch.testing.assert_close(rollout.ref_logprobs, expected.logprobs, atol=1e-5, rtol=1e-5)
    assert (rollout.logprobs - rollout.ref_logprobs).abs().max() > 0.05


def test_without_a_teacher_the_folder_of_the_policy_needs_no_tokenizer(
    trained: Callable[..., str], micro_model: Path, tmp_path: Path
) -> None:
    policy = trained(1)
    for file in Path(policy).glob("token*"):
        file.unlink()
    _, recorder = iterate(tmp_path, micro_model, policy=PolicySettings(policy, dtype="float32"))
    assert recorder.statistics[0]["rollout/kl"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.slow
def test_distillation_moves_the_policy_towards_its_teacher(
    trained: Callable[..., str], micro_model: Path, tmp_path: Path
) -> None:
    settings = {"advantages": Distillation(), "kl": KLPenalty(coef=1.0), "optimizer": lambda p: MasterAdamW(p, lr=5e-3)}
    _, recorder = iterate(tmp_path, micro_model, batches=20, minibatch_size=4, teacher=trained(1, epochs=20), **settings)
    kl = [step["rollout/kl"] / step["rollout/response_tokens"] for step in recorder.statistics]
    assert sum(kl[-5:]) < 0.8 * sum(kl[:5]), kl


def test_a_teacher_with_other_tokens_is_refused(trained: Callable[..., str], micro_model: Path, tmp_path: Path) -> None:
    teacher = trained(1)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    tokenizer.add_tokens(["<other>"])
    tokenizer.save_pretrained(teacher)
    with pytest.raises(UserError, match=r"model\.teacher .* has other tokens than the policy: choose a teacher"):
        iterate(tmp_path, micro_model, teacher=teacher)


@pytest.mark.parametrize("kl", [KLPenalty(coef=0.0), KLPenalty(coef=1.0, place="loss")])
def test_distillation_without_a_penalty_in_the_reward_is_refused(kl: KLPenalty, micro_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set model\.kl\.coef to 1 and model\.kl\.place to reward"):
        iterate(tmp_path, micro_model, advantages=Distillation(), kl=kl)
    iterate(tmp_path, micro_model, advantages=GRPO(), kl=kl, samples_per_problem=2)
