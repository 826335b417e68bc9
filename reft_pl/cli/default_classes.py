"""The classes that stand behind settings whose default is None, so that configs can set up the default without naming it."""

from __future__ import annotations

from typing import Any

from reft_pl.cli.setting_types import accepts_null, bases
from reft_pl.reward.answer import AnswerReward
from reft_pl.reward.base import RewardFunction
from reft_pl.rl.estimators import GAE, AdvantageEstimator
from reft_pl.rl.policy_losses import PolicyLoss, PPOClip
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.cpython import CPythonSandbox

DEFAULT_CLASSES: dict[type, type] = {
    RewardFunction: AnswerReward,
    AdvantageEstimator: GAE,
    PolicyLoss: PPOClip,
    Sampler: InProcessSampler,
    Sandbox: CPythonSandbox,
}
"""What a module makes of None, by the type of its argument."""


def name_default_classes(parser: Any) -> None:
    """Let settings whose default is None start from the class that None means; null in a config still means it."""
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if hint is None or action.default is not None or not accepts_null(hint):
            continue
        default = next((DEFAULT_CLASSES[base] for base in bases(hint) if base in DEFAULT_CLASSES), None)
        if default is not None:
            action.default = {"class_path": f"{default.__module__}.{default.__qualname__}"}
