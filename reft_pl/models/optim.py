"""AdamW with float32 master copies of low-precision weights.

bfloat16 has 8 significant bits: near 1, a weight cannot change by less than 0.004, but a step at learning rate 3e-6 is a
thousand times smaller. The optimizer therefore updates float32 copies and writes the rounded values to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.optimizer import Optimizer, ParamsT

FUSED_DEVICES = ("cpu", "cuda")


class MasterAdamW(Optimizer):
    """``torch.optim.AdamW`` with float32 master copies of bfloat16 and float16 weights.

    The arithmetic is torch's fused AdamW, or its default AdamW on devices without a fused one. Master weights and moments are
    part of the optimizer state, so a resumed run matches an uninterrupted one bitwise.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        betas: Decay rates of the running averages of the gradient and its square.
        eps: Added to the denominator.
        weight_decay: Decoupled weight decay, multiplied by the learning rate.
        offload: Keep master weights and moments in host memory and step there. This is slower, but a GPU holds only weights and
            gradients. A float32 weight on a GPU then has a master copy too.

    Raises:
        ValueError: A hyperparameter is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        offload: bool = False,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"lr, eps and weight_decay must not be negative and betas must be in [0, 1), got {lr, eps, weight_decay, betas}"
            )
        self.offload = offload
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for bucket in _buckets(params, lambda p: bucket_elements(self._state_device(p).type)):
                self._step_bucket(group, bucket)
        return loss

    def _step_bucket(self, group: dict[str, Any], params: list[Tensor]) -> None:
        states = [self._state_of(p) for p in params]
        masters = [state.get("master", p) for state, p in zip(states, params, strict=True)]
        adamw(
            masters,
            [p.grad.to(master) for p, master in zip(params, masters, strict=True) if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=all(master.device.type in FUSED_DEVICES for master in masters) or None,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for p, master in zip(params, masters, strict=True):
            if master is not p:
                p.copy_(master)

    def _state_of(self, param: Tensor) -> dict[str, Any]:
        """Return a parameter's state, created if missing and moved to the device where the step runs.

        A resumed state may be on the wrong device: ``offload`` may have changed, and Lightning moves loaded states to
        the GPU.
        """
        state: dict[str, Any] = self.state[param]
        device = self._state_device(param)
        if "master" not in state and (param.dtype in (torch.bfloat16, torch.float16) or device != param.device):
            state["master"] = param.detach().to(device, torch.float32, copy=True)
        if "exp_avg" not in state:
            shape = state.get("master", param)
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["exp_avg"] = torch.zeros_like(shape)
            state["exp_avg_sq"] = torch.zeros_like(shape)
        for name, value in state.items():
            state[name] = value.to(device)
        return state

    def forget_masters(self) -> None:
        """Drop master weights after loading weights without optimizer state; the next step copies the weights again."""
        for state in self.state.values():
            state.pop("master", None)

    def _state_device(self, param: Tensor) -> torch.device:
        return torch.device("cpu") if self.offload else param.device

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state bitwise; ``Optimizer.load_state_dict`` would round master weights and moments to the weights' dtype."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        params = [p for group in self.param_groups for p in group["params"]]
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        for index, param in zip(indices, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                self.state[param][name] = value.to(self._state_device(param), copy=True)


def bucket_elements(device: str) -> int:
    """Return the maximum number of weights per AdamW call; a larger parameter gets its own call.

    On a CPU the bucket is small enough to stay in the caches. On a GPU fewer calls are faster; the float32
    copies of a bucket's gradients take 256 MB.
    """
    return 2**20 if device == "cpu" else 2**26


def _buckets(params: list[Tensor], most: Callable[[Tensor], int]) -> Iterator[list[Tensor]]:
    """Group consecutive parameters of one dtype and device into buckets of bounded size."""
    bucket: list[Tensor] = []
    elements = 0
    for p in params:
        alike = not bucket or (p.dtype, p.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or elements + p.numel() > most(p)):
            yield bucket
            bucket, elements = [], 0
        bucket.append(p)
        elements += p.numel()
    if bucket:
        yield bucket
