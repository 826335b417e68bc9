"""The plug-ins on two real ranks: one file with all samples, and one decision for both ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

sys.path.insert(0, sys.argv[1])
from conftest import TinyModule
from reft_pl_callbacks import ExportHF, KLGuard, NonFiniteGuard, SampleTable


class Module(TinyModule):
    def export(self, folder):
        if self.trainer.is_global_zero:
            super().export(folder)


def kl(step):  # the first rank alone would never stop
    return 120.0 if module.trainer.global_rank == 1 and step >= 1 else 0.0


module = Module(sequences=2, kl=kl)
callbacks = [SampleTable(), NonFiniteGuard(), KLGuard(patience=2), ExportHF(every_n_batches=1, keep=1)]
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=3, callbacks=callbacks, default_root_dir=sys.argv[2],
    logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    use_distributed_sampler=False,
)
trainer.fit(module, DataLoader(range(4), batch_size=1))
"""


@pytest.mark.slow
def test_two_ranks(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "(now 60)" in done.stderr
    lines = (tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert ids == [f"p{step}-{i}" for step in range(3) for rank in range(2) for i in range(2)]
    assert [path.name for path in tmp_path.glob("*hf*")] == ["hf-step-3"]
