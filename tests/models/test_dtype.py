import pytest
import torch

from reft_pl.models.dtype import fastest_dtype
from reft_pl.models.settings import PolicySettings

X86 = {"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False}


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        (X86, "float32"),
        (X86 | {"avx512_f": True}, "float32"),
        (X86 | {"avx512_f": True, "avx512_bf16": True}, "bfloat16"),
        (X86 | {"amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": False}, "float32"),
        ({"neon": True, "bf16": True}, "bfloat16"),
    ],
)
def test_bfloat16_if_the_cpu_has_instructions_for_it(
    capabilities: dict[str, bool], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert fastest_dtype() == chosen
    assert PolicySettings("x").torch_dtype == getattr(torch, chosen), "auto is the default"
    assert PolicySettings("x", dtype="bfloat16").torch_dtype == torch.bfloat16
    assert PolicySettings("x", dtype="float32").torch_dtype == torch.float32


@pytest.mark.usefixtures("without_gpu")
def test_unknown_capabilities_mean_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fastest_dtype() == "float32"


@pytest.mark.parametrize(("native", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_takes_precedence(native: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert fastest_dtype() == chosen
