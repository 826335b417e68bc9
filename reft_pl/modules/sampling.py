"""Sample many solutions per question for voting, reranking and offline self-training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reft_pl.data.identity import problems_digest, tokenizer_digest
from reft_pl.data.sample_file import read_samples, sampled_question
from reft_pl.errors import UserError
from reft_pl.evaluation.at_k import MAX_SAMPLES, PerQuestion, sampling_figures
from reft_pl.evaluation.files import update_results
from reft_pl.evaluation.sample_store import SampleStore
from reft_pl.evaluation.top1 import Top1
from reft_pl.formats.answers import is_correct
from reft_pl.models.fingerprint import fingerprint
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.run_module import RunModule
from reft_pl.modules.solver import Solver
from reft_pl.rollout.base import Sampler
from reft_pl.sandbox.base import Sandbox
from reft_pl.types import Problem, SamplingParams


class SamplingModule(RunModule):
    """Sample and execute n solutions of each question of ``data.predict`` with a trained policy.

    Samples go to ``samples/<set>.jsonl`` in the run folder, one line per question, batch by batch. After a kill, the same
    command resumes. Run it several times at once (in other terminals, on machines that share the folder) to share the work.
    When a file is complete, voting@k and pass@k go to ``results.json``. ``samples/<set>.json`` then holds the same samples as
    one list in the format of the authors' scripts.

    Args:
        policy: The model and its dtype.
        n: Solutions per question.
        temperature: Sampling temperature; 0 is greedy.
        top_k: Sample from the k most likely tokens; 0 is all. The authors' samples used the library's default, 50.
        top_p: Sample from the most likely tokens up to this total probability.
        sampler: Generates completions; None is the in-process sampler.
        sandbox: Runs the programs in completions; None is confined CPython.
        **kwargs: Settings of ``RunModule``.
    """

    stage = "sampling"
    validation_figures = ("val/top1",)

    def __init__(
        self,
        policy: PolicySettings,
        n: int = 100,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 1.0,
        sampler: Sampler | None = None,
        sandbox: Sandbox | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, **kwargs)
        self.solver = Solver(self, sampler, sandbox)
        self.top1 = Top1()
        if not 1 <= n <= MAX_SAMPLES or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
            raise UserError(
                f"model.n must be between 1 and {MAX_SAMPLES}, top_p above 0 and at most 1, and temperature and "
                "top_k at least 0: check model.*"
            )
        self.n = n
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.stores: list[SampleStore] = []
        self.summaries: dict[str, dict[str, Any]] = {}  # of the sets that are complete when this process ends

    def configure_model(self) -> None:
        """Load the policy once."""
        if not hasattr(self, "policy"):
            self.policy = self.solver.load()

    @property
    def weights(self) -> str:
        """Digest of the policy's weights, which every figure in ``results.json`` names."""
        return self.solver.weights

    def on_predict_start(self) -> None:
        """Open the sample files before sampling."""
        folder = Path(self.trainer.default_root_dir) / "samples"
        codec = self.problems.codec
        settings = {
            "model": fingerprint(self.policy),
            "weights": self.weights,
            "n": self.n,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "seed": self.seed,
            **codec.description(),
            "tokenizer_digest": tokenizer_digest(codec.tokenizer, codec.stop_ids),
        }
        self.stores, self.summaries = [], {}
        for name, loader in zip(self.problems.predict_names, self.problems.predict_dataloader(), strict=True):
            batches = loader.global_batches(0)
            questions = {
                "questions": len(loader.problems),
                "questions_digest": problems_digest(loader.problems),
                "batch_size": loader.batch_size,
            }
            self.stores.append(SampleStore(folder, name, [len(batch) for batch in batches], settings | questions))

    def predict_step(self, batch: list[Problem], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Sample a batch of questions, unless it is finished or another process has claimed it."""
        store = self.stores[dataloader_idx]
        with store.claim(batch_idx) as mine:
            if mine:
                params = SamplingParams(self.problems.codec.max_tokens, self.temperature, self.top_k, self.top_p)
                samples = self.solver.sample(batch, params, self.n)
                self.phases.take()
                groups = [samples[i : i + self.n] for i in range(0, len(samples), self.n)]
                store.add(batch_idx, [sampled_question(group) for group in groups])

    def on_predict_end(self) -> None:
        """Write voting@k and pass@k of each complete file to ``results.json``."""
        self.trainer.strategy.barrier()  # ranks claim batches as they go
        if self.trainer.is_global_zero:
            self._finish()

    def validation_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Log greedy Top-1 on held-out questions."""
        self.top1.update([is_correct(sample) for sample in self.solver.greedy(batch)])
        self.log("val/top1", self.top1, on_epoch=True, batch_size=len(batch), prog_bar=True)

    def test_step(self, batch: list[Problem], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Solve a batch of a test set greedily."""
        self.solver.test(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Write Top-1 of each test set to the log, ``results.json`` and ``predictions/``."""
        self.solver.report_test()

    def teardown(self, stage: str) -> None:
        """Stop the processes of sandbox and sampler."""
        self.solver.close()

    def _finish(self) -> None:
        for name, store in zip(self.problems.predict_names, self.stores, strict=True):
            if store.finish():
                figures = PerQuestion()
                items = read_samples(store.path)
                for item in items:
                    figures.update(sampling_figures(item))
                self.summaries[name] = {"questions": len(items), "n": self.n, **figures.summary(), "weights": self.weights}
        if self.summaries:
            update_results(Path(self.trainer.default_root_dir), "samples", self.summaries)
