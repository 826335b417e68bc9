"""Extension of vLLM's worker (`worker_extension_cls`): weight loading, digest, temperature and suppressed ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reft_pl.rollout.vllm.digest import weights_digest

ROWS = 256
"""Rows of the identity matrix per product when reading a packed layer."""


class WorkerExtension:
    """Methods that vLLM mixes into its worker class; ``collective_rpc`` calls them by name."""

    model_runner: Any
    reload_weights: Any

    def reft_load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace all weights, including kernel copies that vLLM's reload misses.

        On the CPU, an LM head tied to the embeddings keeps a separate packed copy. Reloading (vLLM 0.32) does not update it,
        because the checkpoint has no weights under its name.
        """
        self.reload_weights(weights_iterator=weights)
        for module in self.model_runner.get_model().modules():
            if hasattr(module, "cpu_linear") and module.weight.numel():
                module.quant_method.process_weights_after_loading(module)

    @torch.no_grad()
    def reft_weights_digest(self) -> str:
        """Return the digest of the weights that the engine currently computes with.

        Raises:
            ValueError: The packed copy of a layer differs from its weight.
        """
        return weights_digest(_weights(self.model_runner.get_model()))

    def reft_set_temperature(self, temperature: float) -> None:
        """Report log-probabilities at the sampling temperature; vLLM reports them at 1, or after top-k and top-p."""
        sampler = self.model_runner.sampler

        def logprobs_at_temperature(logits: Tensor) -> Tensor:
            return (logits.float() / temperature).log_softmax(dim=-1)

        if not callable(getattr(type(sampler), "compute_logprobs", None)):
            raise NotImplementedError(f"{type(sampler)} has no compute_logprobs")
        sampler.compute_logprobs = logprobs_at_temperature

    def reft_suppress(self, ranges: Sequence[Sequence[int]]) -> None:
        """Never sample ids in these half-open ranges; vLLM's own setting would list all allowed ids in every request."""
        sampler = self.model_runner.sampler
        process = getattr(type(sampler), "apply_logits_processors", None)
        if not callable(process):
            raise NotImplementedError(f"{type(sampler)} has no apply_logits_processors")

        def without_suppressed(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            processed: Tensor = process(sampler, logits, *args, **kwargs)
            for start, end in ranges:
                processed[:, start:end] = float("-inf")
            return processed

        sampler.apply_logits_processors = without_suppressed


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """Yield every weight once, as the kernels use it."""
    seen = set()
    for name, module in model.named_modules():
        packed = _packed(module)
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if parameter_name == "weight" and packed is not None:
                continue
            if parameter.numel() and id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter
        if packed is None:
            continue
        weight = module.get_parameter("weight")
        if not weight.numel():  # vLLM freed it in favour of the packed copy
            yield packed
        elif not torch.equal(packed, weight):
            raise ValueError(f"the packed weights of {name} differ from its weight")
        elif id(weight) not in seen:
            seen.add(id(weight))
            yield weight


def _packed(module: nn.Module) -> Tensor | None:
    """Return the weight [out, in] of a layer with a packed copy for its kernel, as on the CPU; None without one.

    It is read through the kernel: the product with the identity is the weight, bit for bit, since x + 0 = x.
    """
    linear = getattr(module, "cpu_linear", None)
    if linear is None or linear is nn.functional.linear:
        return None
    weight = module.get_parameter("weight")
    width: Any = getattr(module, "input_size_per_partition", weight.shape[-1])
    identity = torch.eye(width, dtype=weight.dtype, device=weight.device)
    columns = [linear(rows, weight, None) for rows in torch.split(identity, ROWS)]
    return torch.cat(columns).t()
