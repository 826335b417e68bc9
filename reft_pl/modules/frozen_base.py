"""The frozen base under LoRA adapters: its digest in checkpoints, and its place in exports."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from reft_pl.errors import UserError
from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.policy import BasePolicy, Policy
from reft_pl.models.settings import PolicySettings


class FrozenBase:
    """The weights under a policy's adapters; without adapters ``exists`` is false, and nothing is recorded or checked.

    Args:
        settings: The policy's settings; ``init_from`` is the base.
    """

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self.digest = ""

    @property
    def exists(self) -> bool:
        """Whether the policy has adapters."""
        return self._settings.lora is not None

    @property
    def adapter_of(self) -> str | None:
        """The base model that an adapter-only export names; None if the export holds whole weights."""
        lora = self._settings.lora
        return self._settings.init_from if lora is not None and lora.export == "adapter" else None

    def record(self, policy: Policy) -> None:
        """Compute the base's digest once; call this while each rank has the whole weights."""
        if self.exists and not self.digest:
            self.digest = fingerprint(BasePolicy(policy))

    def description(self) -> dict[str, Any]:
        """The adapters' settings for the export's ``reft.json``."""
        return {} if self._settings.lora is None else {"lora": asdict(self._settings.lora)}

    def mark(self, checkpoint: dict[str, Any]) -> None:
        """Write the digest to a checkpoint of adapters, which does not hold the base itself."""
        if self.exists:
            checkpoint["reft_base"] = self.digest

    def check(self, checkpoint: dict[str, Any], path: str | Path | None) -> None:
        """Compare the base with the one that the adapters in a checkpoint were trained on.

        Raises:
            UserError: it is a different model.
        """
        if self.exists and checkpoint["reft_base"] != self.digest:
            raise UserError(
                f"{self._settings.init_from} is no longer the model that the adapters in {path} were trained on: restore that "
                f"model, or test the run's hf/ folder with --ckpt_path"
            )
