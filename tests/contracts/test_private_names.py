"""Each name of `docs/private_apis.md` still exists upstream and works as the code needs it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

PAGE = Path(__file__).parents[2] / "docs" / "private_apis.md"
Contract = Callable[[], Any]


def mentions(owner: Any, name: str) -> bool:
    """Return whether the source of a class or function sets or reads an attribute."""
    return re.search(rf"\b{name}\b", inspect.getsource(owner)) is not None


def lightning() -> dict[str, Contract]:
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.loops.fit_loop import _FitLoop
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

    return {
        "_batches_that_stepped": lambda: mentions(_TrainingEpochLoop.__init__, "_batches_that_stepped"),
        "_should_check_val_fx": lambda: (
            list(inspect.signature(_TrainingEpochLoop._should_check_val_fx).parameters)[1:] == ["data_fetcher"]
        ),
        "_data_fetcher": lambda: mentions(_FitLoop.__init__, "_data_fetcher"),
        "_skip_next_val": lambda: mentions(_TrainingEpochLoop, "_skip_next_val"),
        "_can_stop_early": lambda: isinstance(inspect.getattr_static(_FitLoop, "_can_stop_early"), property),
        "_SubprocessScriptLauncher": lambda: callable(_SubprocessScriptLauncher.kill),
        "_accelerator_connector": lambda: hasattr(Trainer(logger=False)._accelerator_connector, "cluster_environment"),
        "_prepare_subcommand_parser": lambda: callable(LightningCLI._prepare_subcommand_parser),
    }


def jsonargparse() -> dict[str, Contract]:
    from jsonargparse import ArgumentParser

    def parser() -> Any:
        made = ArgumentParser()
        made.add_argument("--key", type=dict[str, int])
        return made

    return {
        "_actions": lambda: "key" in [action.dest for action in parser()._actions],
        "_typehint": lambda: next(a for a in parser()._actions if a.dest == "key")._typehint == dict[str, int],
    }


def transformers() -> dict[str, Contract]:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
    from transformers.models.codegen.modeling_codegen import CodeGenAttention

    return {
        "_attn_implementation": lambda: LlamaConfig(attn_implementation="eager")._attn_implementation == "eager",
        "_model_mapping": lambda: AutoModelForCausalLM._model_mapping[LlamaConfig] is LlamaForCausalLM,
        "_supports_sdpa": lambda: LlamaForCausalLM._supports_sdpa is True,
        "_get_generation_parameters": lambda: LlamaConfig()._get_generation_parameters() == {},
        "_attn": lambda: mentions(CodeGenAttention.forward, "_attn"),
    }


def torch_() -> dict[str, Contract]:
    def compiles_in_place() -> bool:
        layer = nn.Linear(2, 2)
        layer.compile(backend="eager")
        return layer._compiled_call_impl is not None and callable(layer._call_impl)

    def inductor() -> bool:
        from torch._inductor.codecache import CppCodeCache
        from torch._inductor.cpp_builder import get_cpp_compiler

        return callable(CppCodeCache.load) and callable(get_cpp_compiler)

    def dynamo() -> bool:
        from torch._dynamo.exc import TorchDynamoException

        return issubclass(TorchDynamoException, Exception) and hasattr(torch._dynamo.config, "recompile_limit")

    storage = torch.zeros(2, device="meta")
    return {
        "_compiled_call_impl": compiles_in_place,
        "_call_impl": compiles_in_place,
        "_dynamo": dynamo,
        "_functorch": lambda: hasattr(torch._functorch.config, "activation_memory_budget"),
        "_inductor": inductor,
        "_linear_pointwise": lambda: hasattr(torch.ops.mkldnn, "_linear_pointwise"),
        "_reorder_linear_weight": lambda: hasattr(torch.ops.mkldnn, "_reorder_linear_weight"),
        "_is_mkldnn_bf16_supported": lambda: hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"),
        "_buffers": lambda: nn.Module()._buffers == {},
        "_cdata": lambda: storage[1:].untyped_storage()._cdata == storage.untyped_storage()._cdata,
    }


def tensorboard() -> dict[str, Contract]:
    from torch.utils.tensorboard import SummaryWriter

    return {"_get_file_writer": lambda: callable(SummaryWriter._get_file_writer)}


def deepspeed() -> dict[str, Contract]:
    from deepspeed import DeepSpeedEngine
    from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    return {
        "_get_norm_groups": lambda: callable(DeepSpeedZeroOptimizer_Stage3._get_norm_groups),
        "_register_deepspeed_module": lambda: callable(DeepSpeedZeRoOffload._register_deepspeed_module),
        "_invalidate_trace": lambda: callable(PartitionedParameterCoordinator._invalidate_trace),
        "_config": lambda: mentions(DeepSpeedEngine.load_checkpoint, "load_universal_checkpoint"),
    }


CONTRACTS = {**lightning(), **jsonargparse(), **transformers(), **torch_(), **tensorboard(), **deepspeed()}


def listed() -> dict[str, str]:
    """Return the names of the page with what breaks without them; vLLM's are tested where it is installed."""
    page = PAGE.read_text(encoding="utf-8").partition("## vllm")[0]
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    return {name: row[3].strip() for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_every_name_of_the_page_has_a_contract() -> None:
    assert set(CONTRACTS) == set(listed())


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_upstream_still_has(name: str) -> None:
    try:
        kept = CONTRACTS[name]()
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        pytest.fail(f"{name} is gone ({error}): {listed()[name]}; see docs/private_apis.md")
    assert kept, f"{name} has changed: {listed()[name]}; see docs/private_apis.md"
