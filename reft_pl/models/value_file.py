"""Save and restore value functions, from reft-pl's own file or from TRL's value head."""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reft_pl.damage import damage
from reft_pl.errors import UserError
from reft_pl.models.policy import Policy
from reft_pl.models.pretrained import VALUE_HEAD
from reft_pl.models.stored_weights import StoredWeights

logger = logging.getLogger(__name__)

VALUE_FILE = "value_head.safetensors"

TRL_HEAD = {"v_head.summary.weight": "value_head.weight", "v_head.summary.bias": "value_head.bias"}
"""TRL's names of the value head's parameters, mapped to ours."""


def save_value(policy: Policy, folder: Path) -> None:
    """Write the policy's value function, if it has one."""
    if policy.value_head is not None:
        tensors = {name: tensor.contiguous() for name, tensor in policy.value_parameters().items()}
        save_file(tensors, folder / VALUE_FILE, metadata={"value": policy.value_kind})


def restore_value(policy: Policy, stored: StoredWeights) -> None:
    """Restore the stored value function, if there is one and the policy has a value head.

    reft-pl's own file takes precedence over TRL's value head ``v_head.summary``, which reads the same last hidden states.

    Raises:
        UserError: The stored value function is unreadable, of another kind, or does not fit the model.
    """
    if policy.value_head is None:
        return
    file = stored.file(VALUE_FILE)
    if file is not None:
        _restore_own(policy, file)
    elif stored.names >= TRL_HEAD.keys():
        _restore_trl(policy, stored)
    elif any(name.startswith(VALUE_HEAD) for name in stored.names):
        logger.warning("%s holds a value head in a layout that reft-pl does not support: values start at 0", stored.source)


def _restore_trl(policy: Policy, stored: StoredWeights) -> None:
    own = policy.value_parameters()
    tensors = {ours: stored.read([name])[name] for name, ours in TRL_HEAD.items()}
    if any(own[name].shape != tensor.shape for name, tensor in tensors.items()):
        raise UserError(f"The value head v_head.summary of {stored.source} does not fit its model: remove it from the weights.")
    policy.load_state_dict(tensors, strict=False)
    logger.info("values start from v_head.summary in %s", stored.source)


def _restore_own(policy: Policy, file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as stored:
            kind = (stored.metadata() or {}).get("value")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise damage([file]) or UserError(
            f"{file} cannot be read ({error}): remove it to start with a fresh value function."
        ) from error
    if kind != policy.value_kind:
        raise UserError(
            f"{file} holds a {kind} value function but the run needs a {policy.value_kind} one: change "
            "model.separate_value_model, or remove the file to start with a fresh one."
        )
    own = policy.value_parameters()
    if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        raise UserError(f"{file} does not fit the model in its folder: remove it to start with a fresh value function.")
    policy.load_state_dict(tensors, strict=False)
