"""The KL penalty in the reward and the loss, and its adaptive coefficient."""

import pytest
import torch

from reft_pl.errors import UserError
from reft_pl.rl.kl import KLPenalty

NEW, REF = torch.tensor([[-1.0, -2.0, 5.0]]), torch.tensor([[-1.5, -1.0, 7.0]])
MASK = torch.tensor([[True, True, False]])


def test_in_the_reward_it_is_paid_at_every_action() -> None:
    """Penalties for k1 = 0.5, -1 and k2 = 0.125, 0.5 with coefficient 0.25."""
    assert KLPenalty().rewards(NEW, REF, MASK, 0.25).tolist() == [[-0.125, 0.25, 0]]
    assert KLPenalty(estimator="k2").rewards(NEW, REF, MASK, 0.25).tolist() == [[-0.03125, -0.125, 0]]


def test_in_the_loss_no_reward_is_paid_and_a_gradient_flows() -> None:
    penalty = KLPenalty(estimator="k3", place="loss")
    assert penalty.rewards(NEW, REF, MASK, 0.25).tolist() == [[0, 0, 0]]
    new = NEW.clone().requires_grad_()
    penalty.estimate(new, REF, MASK).sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([[1 - torch.tensor(-0.5).exp(), 1 - torch.tensor(1.0).exp(), 0]]))


def test_gradients_in_expectation() -> None:
    """On the policy's own samples, the gradient of k2 is that of the KL and the gradient of k1 is 0. Exact, with six tokens."""
    logits, q = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = q.log_softmax(-1)
    mask = torch.ones(1, 6, dtype=torch.bool)

    def gradient(estimator: str | None) -> torch.Tensor:
        x = logits.clone().requires_grad_()
        p = x.log_softmax(-1)
        if estimator is None:
            loss = (p.exp() * (p - q)).sum()
        else:
            penalty = KLPenalty(estimator=estimator, place="loss")  # type: ignore[arg-type]
            loss = (p.exp().detach() * penalty.estimate(p[None], q[None], mask)[0]).sum()
        (result,) = torch.autograd.grad(loss, x)
        return result

    torch.testing.assert_close(gradient("k2"), gradient(None))
    torch.testing.assert_close(gradient("k1"), torch.zeros(6, dtype=torch.float64))


def test_the_coefficient_approaches_its_target_in_small_steps() -> None:
    penalty = KLPenalty(target=6.0)
    assert penalty.adapted(0.1, 6.0) == pytest.approx(0.1)
    assert penalty.adapted(0.1, 6.6) == pytest.approx(0.1 * 1.01)
    assert penalty.adapted(0.1, 600.0) == pytest.approx(0.1 * 1.02)  # clipped at a fifth
    assert penalty.adapted(0.1, 0.0) == pytest.approx(0.1 * 0.98)
    assert KLPenalty().adapted(0.1, 600.0) == 0.1


@pytest.mark.parametrize("settings", [{"coef": -1.0}, {"target": 0.0}, {"gain": -0.1}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"check model\.kl"):
        KLPenalty(**settings)  # type: ignore[arg-type]
