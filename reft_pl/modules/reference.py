"""The frozen model that log-probabilities are compared with: the policy's start, or a teacher."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.errors import UserError
from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import BasePolicy, Policy
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.frozen_base import FrozenBase


class Reference:
    """The warm-up policy or a teacher, frozen: a second model, or without a teacher the base under the policy's adapters.

    It is not a submodule of the stage, so it is neither trained nor saved: a checkpoint need not repeat ``init_from``.

    Args:
        policy: The policy in training.
        settings: Its settings.
        base: The base under its adapters.
        seed: Run seed, which initializes a model that is trained from scratch.
        teacher: Folder or hub id of the model to load in place of ``init_from``.
    """

    def __init__(
        self, policy: Policy, settings: PolicySettings, base: FrozenBase, seed: int, teacher: str | None = None
    ) -> None:
        self._base = base if base.exists and teacher is None else None
        if teacher is not None:
            settings = replace(settings, init_from=teacher, from_scratch=False, lora=None)
        self._settings = settings
        self._policy = BasePolicy(policy) if self._base else load_policy(settings, "none", seed=seed).requires_grad_(False)

    def to(self, device: torch.device | str) -> Policy:
        """Move the reference to a device and return it."""
        return self._policy.to(device)

    @cached_property
    def digest(self) -> str:
        """Digest of the reference, which never changes."""
        return self._base.digest if self._base else fingerprint(self._policy)

    def check_tokenizer(self, codec: Codec) -> None:
        """Compare the model's tokenizer with that of the data: it scores the policy's tokens.

        Raises:
            UserError: it differs.
        """
        source = self._settings.init_from
        own = load_tokenizer(source, self._settings.trust_remote_code)
        if own.get_vocab() != codec.tokenizer.get_vocab():
            raise UserError(
                f"model.teacher {source} has other tokens than the policy: choose a teacher with the same tokenizer"
            )

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
                f"{self._settings.init_from} is no longer the model that this run compares with: restore that model, or start "
                f"again in another --run_dir"
            )
