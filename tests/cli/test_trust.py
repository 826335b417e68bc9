"""Commands in untrusted folders: planted code does not run, modules that the user names do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.models.export import export_folder
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings
from tests.payload import Payload

Overlay = Callable[..., str]
NL = {"class_path": "NaturalLanguage", "init_args": {}}
OWN_FORM = """
import my_helper
from reft_pl.formats import NaturalLanguage

class MyForm(NaturalLanguage):
    def __init__(self, mark=my_helper.MARK):
        self.mark = mark
        print("form with mark", mark)

    def settings(self):
        return {"class_path": "my_form.MyForm", "init_args": {"mark": self.mark}}
"""


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A path that planted code would create."""
    return tmp_path / "RAN"


@pytest.fixture
def folder(micro_model: Path, tmp_path: Path) -> Path:
    """A model folder in a working folder, as a run exports it."""
    model = tmp_path / "work" / "models" / "m"
    policy = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"))
    export_folder(policy, load_tokenizer(str(micro_model)), model, {"format": NL, "max_tokens": 60, "max_prompt_tokens": 50})
    return model


def plant(file: Path, ran: Path, more: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"open({str(ran)!r}, 'a').write(__name__)\n{more}\n")


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | changes))


def reft_pl(*args: object, cwd: Path, questions: str = "What is 1+1?\n", code: int = 0) -> str:
    """Run the installed command with questions on standard input, and return its output."""
    command = [str(Path(sys.executable).with_name("reft-pl")), *map(str, args)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / ".hf"), "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=cwd, env=env, input=questions, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    wrote = done.stdout + done.stderr
    assert done.returncode == code, wrote
    assert "Traceback" not in wrote
    return wrote


def refused(wrote: str, *words: str) -> None:
    """Check for a one-sentence error that neither asks nor suggests to disable a safety check."""
    sentences = [line for line in wrote.splitlines() if line.startswith("reft-pl")]
    assert len(sentences) == 1, wrote
    assert all(word in sentences[0] for word in words), wrote
    assert "[y/N]" not in wrote
    assert "weights_only" not in wrote


# ---- a model folder


@pytest.mark.parametrize("path", [pytest.param("models.m.payload.X", marks=pytest.mark.slow), "payload.Chat"])
def test_a_folder_can_name_only_built_in_formats(path: object, folder: Path, ran: Path) -> None:
    plant(folder / "payload.py", ran)
    edit(folder / "reft.json", format={"class_path": path})
    for cwd, name in ((folder.parents[1], "models/m"), (folder, ".")):
        refused(reft_pl("solve", name, cwd=cwd, code=2), "not built into reft-pl", "--format")
    assert not ran.exists()


def test_a_format_that_is_not_a_mapping_is_one_sentence(folder: Path) -> None:
    edit(folder / "reft.json", format="Chat")
    refused(reft_pl("solve", ".", cwd=folder, code=2), "reft.json", "no mapping")


PLANTED = ["gmpy2", "gmpy", "numexpr", "sitecustomize", "usercustomize", "readline", "vllm", "kernels", "payload", "yaml"]


@pytest.mark.slow
def test_modules_of_the_working_folder_do_not_run(folder: Path, ran: Path, overlay: Overlay) -> None:
    for name in PLANTED:
        plant(folder / f"{name}.py", ran)
    plant(folder / "pip" / "__init__.py", ran)
    plant(folder / "pip" / "__main__.py", ran)
    wrote = reft_pl("solve", ".", "What is 1+1?", "--samples", "2", "--json", cwd=folder)
    assert '"samples": 2' in wrote
    config = overlay("nl", init_from=folder, data={"format": NL, "validation": None}, trainer={"max_epochs": 1})
    args = ["--config", "configs/sft.yaml", "--config", config]
    reft_pl("fit", *args, cwd=folder)
    reft_pl("test", *args, cwd=folder)
    reft_pl("memory", *args, cwd=folder)
    reft_pl("import-gguf", "pypi:no-such-model-package-0", "out", cwd=folder, code=2)
    assert not ran.exists()


@pytest.mark.slow
def test_a_custom_format_is_named_on_the_command_line(folder: Path) -> None:
    edit(folder / "reft.json", format={"class_path": "my_form.MyForm", "init_args": {"mark": 5}})
    work = folder.parents[1]
    (work / "my_form.py").write_text(OWN_FORM)
    (work / "my_helper.py").write_text("MARK = 3")
    refused(reft_pl("solve", "models/m", cwd=work, code=2), "--format")
    assert "form with mark 5" in reft_pl("solve", "models/m", "--format", "my_form.MyForm", cwd=work)
    edit(folder / "reft.json", format=NL)
    assert "form with mark 3" in reft_pl("solve", "models/m", "--form=my_form.MyForm", cwd=work)
    refused(reft_pl("solve", "models/m", "--format", "my_form.MyFrom", cwd=work, code=2), "cannot be imported")
    refused(reft_pl("solve", "models/m", "--format", "my_helper.MARK", cwd=work, code=2), "is not a prompt format")
    refused(reft_pl("solve", "models/m", "--format", "os.system", cwd=work, code=2), "is not a prompt format")


# ---- code that comes with a model


CONFIG_CODE = "from transformers import LlamaConfig\nclass C(LlamaConfig):\n    model_type = 'evil'\n"
MODEL_CODE = (
    "from transformers import LlamaForCausalLM\nfrom .evil_conf import C\nclass M(LlamaForCausalLM):\n    config_class = C\n"
)
AUTO_MAP = {"AutoConfig": "evil_conf.C", "AutoModelForCausalLM": "evil_model.M"}


def with_code(folder: Path, ran: Path, **changes: Any) -> None:
    plant(folder / "evil_conf.py", ran, CONFIG_CODE)
    plant(folder / "evil_model.py", ran, MODEL_CODE)
    edit(folder / "config.json", auto_map=AUTO_MAP, **changes)


ANSWERS = "1\ny\nyes\nWhat is 1+1?\n"


@pytest.mark.slow
def test_a_model_with_code_runs_only_with_trust_remote_code(folder: Path, ran: Path, overlay: Overlay) -> None:
    with_code(folder, ran, model_type="evil", architectures=["M"])
    work = folder.parents[1]
    refused(reft_pl("solve", "models/m", cwd=work, questions=ANSWERS, code=2), "--trust_remote_code")
    config = overlay("nl", init_from=folder, data={"format": NL, "validation": None}, trainer={"max_epochs": 1})
    args = ["--config", "configs/sft.yaml", "--config", config]
    for verb in ("fit", "memory"):
        refused(reft_pl(verb, *args, cwd=work, questions=ANSWERS, code=2), "policy.trust_remote_code")
    refused(reft_pl("test", *args, "--ckpt_path", folder, cwd=work, questions=ANSWERS, code=2), "policy.trust_remote_code")
    assert not ran.exists()
    reft_pl("solve", "models/m", "--trust_remote_code", cwd=work)
    assert ran.exists()
    ran.unlink()
    reft_pl("test", *args, "--ckpt_path", folder, "--model.policy.trust_remote_code", "true", cwd=work)
    assert ran.exists()


@pytest.mark.slow
def test_code_beside_a_known_model_is_ignored(folder: Path, ran: Path) -> None:
    with_code(folder, ran)
    plant(folder / "custom_generate" / "generate.py", ran)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil_conf.C", "evil_conf.C"]})
    edit(folder / "processor_config.json", auto_map={"AutoProcessor": "evil_conf.C"})
    edit(folder / "generation_config.json", auto_map=AUTO_MAP, custom_generate="evil/generate")
    wrote = reft_pl("solve", ".", cwd=folder, questions=ANSWERS)
    assert "[y/N]" not in wrote
    assert not ran.exists()
    policy = load_policy(PolicySettings(str(folder), dtype="float32"))
    assert not hasattr(policy.lm.config, "auto_map"), "an export of it does not name code that it does not have"


@pytest.mark.slow
def test_a_tokenizer_with_code_is_refused(folder: Path, ran: Path) -> None:
    plant(folder / "evil_tokens.py", ran, "class T: pass")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil_tokens.T", None]}, tokenizer_class="T")
    for name in ("tokenizer.json", "tokenizer.model"):
        (folder / name).unlink(missing_ok=True)
    wrote = reft_pl("solve", ".", cwd=folder, questions=ANSWERS, code=2)
    assert "[y/N]" not in wrote
    assert not ran.exists()


@pytest.mark.slow
def test_an_attention_kernel_of_the_hub_is_refused(folder: Path) -> None:
    edit(folder / "config.json", attn_implementation="evil/kernel")
    refused(reft_pl("solve", ".", cwd=folder, code=2), "--trust_remote_code")


@pytest.mark.slow
def test_the_base_of_adapters_is_not_trusted_either(folder: Path, ran: Path) -> None:
    adapter = folder.parent / "adapter"
    shutil.copytree(folder, adapter, ignore=shutil.ignore_patterns("config.json", "model.safetensors"))
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(folder),
        "target_modules": ["q_proj"],
    }
    edit(adapter / "adapter_config.json", **settings)
    with_code(folder, ran, model_type="evil", architectures=["M"])
    refused(reft_pl("solve", ".", cwd=adapter, questions=ANSWERS, code=2), "--trust_remote_code")
    plant(adapter / "payload.py", ran)
    edit(adapter / "adapter_config.json", megatron_config={"x": 1}, megatron_core="payload")
    refused(reft_pl("solve", ".", cwd=adapter, questions=ANSWERS, code=2), "megatron_config")
    assert not ran.exists()


# ---- checkpoints


@pytest.mark.slow
def test_checkpoints_of_others_run_no_code(folder: Path, ran: Path, overlay: Overlay) -> None:
    config = overlay("nl", init_from=folder, data={"format": NL, "validation": None}, trainer={"max_epochs": 1})
    args = ["--config", "configs/sft.yaml", "--config", config]
    work = folder.parents[1]
    (work / "evil.ckpt" / "checkpoint").mkdir(parents=True)
    (work / "evil.ckpt" / "latest").write_text("checkpoint")
    payload = Payload(os.mkdir, str(ran))
    torch.save({"x": payload}, work / "evil.ckpt" / "checkpoint" / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    torch.save({"state_dict": {}, "callbacks": {"x": payload}}, work / "file.ckpt")
    for name in ("evil.ckpt", "file.ckpt"):
        for verb in ("test", "fit", "validate"):
            if verb == "validate" and name == "file.ckpt":
                continue
            refused(reft_pl(verb, *args, "--ckpt_path", name, cwd=work, code=2), "which could run code", "--ckpt_path")
    assert not ran.exists()
