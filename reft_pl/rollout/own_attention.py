"""Models that look no attention up, and have a method for it instead (Codegen): sampling's attention in that method's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.codegen.modeling_codegen import CodeGenAttention

Attention = Callable[..., tuple[Tensor, None]]


def has_own_attention(lm: PreTrainedModel) -> bool:
    """Whether the model is one of those."""
    return any(isinstance(module, CodeGenAttention) for module in lm.modules())


@contextmanager
def replaced(lm: PreTrainedModel, attention: Attention) -> Iterator[None]:
    """Let every attention module of ``lm`` use ``attention``, which gets the ``packing`` that the model is called with."""
    packing: list[Any] = [None]

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        packing[0] = kwargs.pop("packing", None)  # the model itself would not hand it on
        return args, kwargs

    def attend(module: nn.Module) -> Callable[..., tuple[Tensor, None]]:
        def method(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, None]:
            output, _ = attention(module, query, key, value, attention_mask, packing=packing[0])
            return output.transpose(1, 2), None  # as the method gives it, heads before tokens

        return method

    hook = lm.register_forward_pre_hook(remember, with_kwargs=True)
    modules = [module for module in lm.modules() if isinstance(module, CodeGenAttention)]
    for module in modules:
        module._attn = attend(module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        hook.remove()
        for module in modules:
            del module._attn
