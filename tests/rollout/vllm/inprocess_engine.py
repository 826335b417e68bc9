"""An engine with vLLM's interface on top of the in-process sampler, to test servers without vLLM."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from reft_pl.models.policy import Policy
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.vllm.digest import weights_digest
from reft_pl.rollout.vllm.engine import EngineSettings
from reft_pl.types import Completion, SampleRequest


class InProcessEngine:
    """Samples with ``InProcessSampler``, and records its calls."""

    calls: ClassVar[list[str]] = []

    def __init__(self, config: Mapping[str, Any], dtype: str, settings: EngineSettings) -> None:
        InProcessEngine.calls.append("start")
        self.max_model_len = settings.max_model_len
        lm = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)))
        self.policy = Policy(lm.to(getattr(torch, dtype)).eval())
        self.sampler = InProcessSampler()

    def close(self) -> None:
        InProcessEngine.calls.append("close")

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> str:
        InProcessEngine.calls.append("load")
        parameters = dict(self.policy.lm.named_parameters())
        for name, tensor in weights:
            parameters[name].copy_(tensor)
        self.sampler.sync(self.policy)
        return weights_digest(parameters.values())

    def stream(self, requests: Sequence[SampleRequest]) -> Generator[Completion, None, None]:
        InProcessEngine.calls.append("stream")
        yield from self.sampler.stream(requests)
