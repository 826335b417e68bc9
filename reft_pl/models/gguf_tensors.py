"""What transformers makes of the tensors of a GGUF file, which it does not report itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

ROPE_FACTORS = "rope_freqs.weight"
"""Factors of the rotary frequencies, which transformers takes from a config instead: only ones lose nothing."""

_SPLIT = re.compile(r"\.ffn_(?:gate|up|down|gate_up)_(?:exps|projs)\.weight$")
_GPT2_HEAD = ("gpt2", "output.weight")
"""Tensors that transformers places without listing them: experts, which it splits, and one head."""


def unplaced_tensors(file: Path, lm: PreTrainedModel) -> list[str]:
    """Names of the tensors that ``transformers`` left out when it loaded ``lm`` from ``file``."""
    from gguf import GGUFReader  # noqa: PLC0415 (an extra)

    reader = GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=lm.config.to_dict())  # type: ignore[no-untyped-call]
    places = get_gguf_hf_weights_map(lm, processor)
    unplaced = []
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS and bool((np.asarray(tensor.data) == 1).all()):
            continue
        if tensor.name not in places and not _SPLIT.search(tensor.name) and (architecture, tensor.name) != _GPT2_HEAD:
            unplaced.append(tensor.name)
    return unplaced


def part_of(file: Path) -> int | None:
    """How many files a model is split into of which this is one; None for a whole one."""
    from gguf import GGUFReader  # noqa: PLC0415

    count = GGUFReader(file).fields.get("split.count")
    parts = 1 if count is None else int(count.contents())
    return parts if parts > 1 else None
