"""ExportHF: when it exports, which folders it keeps, and atomic writes."""

from pathlib import Path
from typing import Any

import pytest
from reft_pl_callbacks import ExportHF


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if "hf" in path.name)


def test_every_n_batches_keeping_the_newest(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    make_trainer(ExportHF(every_n_batches=2, keep=3), max_epochs=3).fit(tiny_module(), loader)
    assert folders(tmp_path) == ["hf-step-10", "hf-step-12", "hf-step-8"]
    assert (tmp_path / "hf-step-12" / "step").read_text() == "12"


def test_after_each_validation_but_not_the_sanity_check(
    make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(ExportHF(keep=None), num_sanity_val_steps=1)
    trainer.fit(tiny_module(), loader, loader)
    assert folders(tmp_path) == ["hf-step-4", "hf-step-8"]
    trainer.validate(tiny_module(), loader, verbose=False)
    assert folders(tmp_path) == ["hf-step-4", "hf-step-8"]


def test_a_partial_folder_of_a_killed_run_is_replaced(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    for name in (".hf-step-4.partial", "hf-step-4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale").touch()
    make_trainer(ExportHF(every_n_batches=4, keep=1), max_epochs=1).fit(tiny_module(), loader)
    assert folders(tmp_path) == ["hf-step-4"]
    assert [path.name for path in (tmp_path / "hf-step-4").iterdir()] == ["step"]


def test_a_failed_export_leaves_no_folder(make_trainer: Any, tiny_module: Any, loader: Any, tmp_path: Path) -> None:
    class Full(tiny_module):  # type: ignore[misc, valid-type]
        def export(self, folder: Path) -> None:
            folder.mkdir()
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        make_trainer(ExportHF(every_n_batches=1)).fit(Full(), loader)
    assert folders(tmp_path) == [".hf-step-1.partial"]
