"""KLGuard in real runs of a tiny module: when it stops or warns, and its state after a resume."""

from typing import Any

import pytest
from reft_pl_callbacks import KLGuard


def test_stops_after_patience_with_a_message(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    module = tiny_module(kl=lambda step: 60.0 if step >= 2 else 1.0)
    with pytest.warns(
        UserWarning, match=r"above 50 nats a response for 3 iterations in a row \(now 60\).*best checkpoint is kept"
    ):
        make_trainer(KLGuard(limit=50, patience=3)).fit(module, loader)
    assert module.batches_trained == [0, 1, 2, 3, 4]


def test_a_low_kl_resets_the_count(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    module = tiny_module(kl=lambda step: 1.0 if step % 3 == 2 else 60.0)
    make_trainer(KLGuard(limit=50, patience=3)).fit(module, loader)
    assert len(module.batches_trained) == 8


def test_nan_is_too_high(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    module = tiny_module(kl=lambda step: float("nan"))
    with pytest.warns(UserWarning, match="KLGuard stops the run"):
        make_trainer(KLGuard(patience=2)).fit(module, loader)
    assert module.batches_trained == [0, 1]


def test_warns_once_with_action_warn(make_trainer: Any, tiny_module: Any, loader: Any) -> None:
    module = tiny_module(kl=lambda step: 9.0)
    with pytest.warns(UserWarning, match="KLGuard: the mean KL") as caught:
        make_trainer(KLGuard(limit=5, patience=2, action="warn")).fit(module, loader)
    assert len(module.batches_trained) == 8
    assert sum("KLGuard" in str(warning.message) for warning in caught) == 1


def test_the_count_survives_a_resume() -> None:
    guard, resumed = KLGuard(), KLGuard()
    guard.in_a_row = 2
    resumed.load_state_dict(guard.state_dict())
    assert resumed.in_a_row == 2
