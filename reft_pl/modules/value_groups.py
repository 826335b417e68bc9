"""Parameter groups that train the value function separately from the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reft_pl.errors import UserError
from reft_pl.models.policy import VALUE_PARTS
from reft_pl.strategies.zero import ZeRO

if TYPE_CHECKING:
    from reft_pl.modules.ppo import PPOModule


def value_groups(module: PPOModule) -> list[dict[str, Any]]:
    """Return two groups: the policy's trainable weights, and the value function's with ``value_lr``.

    Raises:
        UserError: the strategy is ZeRO, which steps flat shards of all weights.
    """
    if isinstance(module.trainer.strategy, ZeRO):
        raise UserError(
            "model.value_lr and model.value_warmup do not work under ZeRO: leave them out, or set trainer.strategy to ddp"
        )
    named = [(name, p) for name, p in module.policy.named_parameters() if p.requires_grad]
    policy, values = ([p for name, p in named if name.startswith(VALUE_PARTS) is of_values] for of_values in (False, True))
    return [{"params": policy}, {"params": values, **({} if module.value_lr is None else {"lr": module.value_lr})}]
