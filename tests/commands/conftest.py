from pathlib import Path

import pytest

from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.models.export import export_folder
from reft_pl.models.loading import load_policy
from reft_pl.models.settings import PolicySettings


@pytest.fixture(scope="session")
def exported(micro_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model folder with untrained weights."""
    folder = tmp_path_factory.mktemp("exported") / "hf"
    policy = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"))
    form = {"class_path": "reft_pl.formats.PythonProgram", "init_args": {}}
    description = {"stage": "sft", "format": form, "max_prompt_tokens": 100, "max_tokens": 120}
    export_folder(policy, load_tokenizer(str(micro_model)), folder, description)
    return folder
