"""Replace the attention method of CodeGen, which bypasses ``AttentionInterface``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.codegen.modeling_codegen import CodeGenAttention

Attention = Callable[..., tuple[Tensor, None]]


def has_own_attention(lm: PreTrainedModel) -> bool:
    """Return whether the model bypasses ``AttentionInterface``."""
    return any(isinstance(module, CodeGenAttention) for module in lm.modules())


@contextmanager
def replaced(lm: PreTrainedModel, attention: Attention) -> Iterator[None]:
    """Make every attention module of ``lm`` use ``attention`` within the block."""

    def attend(module: nn.Module) -> Callable[..., tuple[Tensor, None]]:
        def method(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, None]:
            output, _ = attention(module, query, key, value, attention_mask)
            return output.transpose(1, 2), None  # the original method returns heads before tokens

        return method

    modules = [module for module in lm.modules() if isinstance(module, CodeGenAttention)]
    for module in modules:
        module._attn = attend(module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module._attn
