"""The frozen reference policy of the KL penalty."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from reft_pl.errors import UserError
from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import BasePolicy, Policy
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.frozen_base import FrozenBase


class Reference:
    """The warm-up policy, frozen: a second copy of ``init_from``, or with adapters the policy's own base.

    It is not a submodule of the stage, so it is neither trained nor saved: a checkpoint need not repeat ``init_from``.

    Args:
        policy: The policy in training.
        settings: Its settings.
        base: The base under its adapters.
        seed: Run seed, which initializes a model that is trained from scratch.
    """

    def __init__(self, policy: Policy, settings: PolicySettings, base: FrozenBase, seed: int) -> None:
        self._init_from = settings.init_from
        self._base = base
        self._policy = BasePolicy(policy) if base.exists else load_policy(settings, "none", seed=seed).requires_grad_(False)

    def to(self, device: torch.device | str) -> Policy:
        """Move the reference to a device and return it."""
        return self._policy.to(device)

    @cached_property
    def digest(self) -> str:
        """Digest of the reference, which never changes."""
        return self._base.digest if self._base.exists else fingerprint(self._policy)

    def mark(self, checkpoint: dict[str, Any]) -> None:
        """Write the digest to a checkpoint."""
        checkpoint["reft_reference"] = self.digest

    def check(self, checkpoint: dict[str, Any]) -> None:
        """Compare the reference with the one that a checkpoint names.

        Raises:
            UserError: it is a different model.
        """
        if checkpoint["reft_reference"] != self.digest:
            raise UserError(
                f"{self._init_from} is no longer the model that this run started from: restore that model, or start again in "
                f"another --run_dir"
            )
