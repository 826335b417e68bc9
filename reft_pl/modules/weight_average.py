"""Exponential moving average of the trained weights, which validation measures and the export holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

AVERAGE = "reft_average"
"""Key of the average in checkpoints to resume from."""


class WeightAverage:
    """Keeps avg <- decay * avg + (1 - decay) * weights after every optimizer step, in float32.

    The average starts from the weights before the first step. While it is in the module, the current weights are kept here,
    so a checkpoint can hold both at any time.

    Args:
        module: The module with the trainable parameters to average. They must be whole: not sharded by ZeRO.
        decay: In (0, 1). The average spans about 1 / (1 - decay) steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._module = module
        self._average: dict[str, Tensor] = {}
        self._current: dict[str, Tensor] = {}  # while the average is in the module

    def start(self) -> None:
        """Start from the current weights, unless a checkpoint has restored the average."""
        for name, parameter in self._trained().items():
            value = self._average.get(name, parameter.detach())
            self._average[name] = value.to(parameter.device, torch.float32, copy=True)

    def update(self) -> None:
        """Add the current weights to the average."""
        for name, parameter in self._trained().items():
            self._average[name].lerp_(parameter.detach().float(), 1 - self.decay)

    @torch.no_grad()
    def enter(self) -> None:
        """Put the average into the module; nothing happens before ``start``."""
        if self._average:
            parameters = self._trained()
            self._current = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            for name, parameter in parameters.items():
                parameter.copy_(self._average[name])

    @torch.no_grad()
    def leave(self) -> None:
        """Put the current weights back, bitwise."""
        for name, parameter in self._trained().items():
            if name in self._current:
                parameter.copy_(self._current[name])
        self._current = {}

    def write_into(self, checkpoint: dict[str, Any]) -> None:
        """Complete a checkpoint that holds the module's state, whichever weights are in the module.

        A checkpoint to resume from gets the current weights and the average. A weights-only checkpoint, such as the best by
        validation, gets the average in place of the weights.
        """
        if not self._average:
            return
        resumable = "optimizer_states" in checkpoint
        weights = (self._current or {}) if resumable else self._average
        names = {id(parameter): name for name, parameter in self._trained().items()}
        for alias, parameter in self._module.named_parameters(remove_duplicate=False):  # a tied head has a second name
            name = names.get(id(parameter))
            if name in weights and alias in checkpoint["state_dict"]:
                checkpoint["state_dict"][alias] = weights[name].to(parameter.dtype)
        if resumable:
            checkpoint[AVERAGE] = dict(self._average)

    def read_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the average; without one in the checkpoint, start a new average from its weights."""
        self._average = dict(checkpoint.get(AVERAGE, {}))

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self._module.named_parameters() if parameter.requires_grad}
