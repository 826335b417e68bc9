"""What every stage shares that lets a policy solve problems: loading it, sampling, executing, greedy evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reft_pl.errors import UserError
from reft_pl.evaluation.files import update_results, write_predictions
from reft_pl.evaluation.top1 import Top1
from reft_pl.formats.answers import is_correct
from reft_pl.models.fingerprint import weights_id
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import ValueKind
from reft_pl.models.settings import PolicySettings
from reft_pl.modules.hooks import PhaseDispatcher
from reft_pl.modules.run_module import RunModule
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.collector import Collector
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.seeds import counter_seed
from reft_pl.rollout.vllm import VLLMSampler, VLLMServerSampler  # noqa: F401 (configs may name them without their path)
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.strategies.zero import whole_weights
from reft_pl.types import Problem, Sample, SamplingParams


class SolverModule(RunModule):
    """Base of everything that lets a policy write and execute solutions: the stages that train it, and sampling.

    Args:
        policy: The model, and the precision to run it in.
        sampler: Writes completions; None is the in-process sampler.
        sandbox: Runs the programs in them; None is confined CPython.
        seed: Run seed, from which every draw of this stage is derived.
    """

    value_kind: ValueKind = "none"
    validation_figures = ("val/top1",)

    def __init__(
        self, policy: PolicySettings, sampler: Sampler | None = None, sandbox: Sandbox | None = None, seed: int = 1
    ) -> None:
        super().__init__()
        self.policy_settings = policy
        self.sampler = sampler or InProcessSampler()
        self.sandbox = sandbox or CPythonSandbox()
        self.seed = seed
        self.phases = PhaseDispatcher(self)
        self.top1 = Top1()
        self._tested: dict[int, list[Sample]] = {}

    def configure_model(self) -> None:
        """Load the policy, once, whichever verb the Trainer runs."""
        if not hasattr(self, "policy"):
            self.policy = load_policy(self.policy_settings, self.value_kind, seed=self.seed)
            self.problems.codec.check_embeddings(self.policy.embedding_rows, self.policy_settings.init_from)
            max_tokens, positions = self.problems.codec.max_tokens, self.policy.positions
            if positions is not None and max_tokens > positions + 1:  # the last token is never read
                raise UserError(
                    f"data.max_tokens is {max_tokens}, and {self.policy_settings.init_from} has {positions} positions: "
                    f"lower data.max_tokens"
                )
            self.sampler.check(self.policy)
            if self.problems.codec.format.runs_programs:
                self.sandbox.check()

    @property
    def collector(self) -> Collector:
        """Samples with this module's sampler, sandbox and prompt form."""
        return Collector(self.problems.codec, self.sampler, self.sandbox, self.phases)

    @property
    def weights(self) -> str:
        """Names the weights that the policy has now; every figure says of which it is."""
        return weights_id(self.policy.lm)

    def sample(self, problems: Sequence[Problem], params: SamplingParams, n: int = 1, first: int = 0) -> list[Sample]:
        """Write and execute ``n`` solutions a problem, with seeds that depend on nothing but their place in the run.

        ``first`` is how many solutions of these problems were written before in this epoch.
        """

        def seed_of(problem: Problem, index: int) -> int:
            return counter_seed(self.seed, self.stage, self.trainer.current_epoch, problem.id, first + index)

        with whole_weights(self.trainer.strategy):
            return self.collector.sample(self.policy, problems, params, seed_of, n)

    def validation_step(self, batch: list[Problem], batch_idx: int) -> None:
        """Greedy Top-1 on held-out questions."""
        samples = self._greedy(batch)
        self.top1.update([is_correct(sample) for sample in samples])
        self.log("val/top1", self.top1, on_epoch=True, batch_size=len(batch), prog_bar=True)

    def test_step(self, batch: list[Problem], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the greedy solutions of each test set until all of them are there."""
        self._tested.setdefault(dataloader_idx, []).extend(self._greedy(batch))

    def on_test_epoch_end(self) -> None:
        """Top-1 of every test set, over all ranks, into the log, ``results.json`` and ``predictions/``."""
        run_dir, weights = Path(self.trainer.default_root_dir), self.weights
        for index, (name, problems) in enumerate(self.problems.test_problems.items()):
            samples = [sample for of_rank in self.ranks.gather(self._tested.get(index, [])) for sample in of_rank]
            place = {problem.id: i for i, problem in enumerate(problems)}
            samples.sort(key=lambda sample: place[sample.problem.id])
            verdicts = [is_correct(sample) for sample in samples]
            top1 = Top1(sync_on_compute=False).to(self.device)
            top1.update(verdicts)
            self.log(f"test/top1/{name}", top1.compute())
            if self.trainer.is_global_zero:
                write_predictions(run_dir / "predictions" / f"{name}.jsonl", samples, verdicts)
                update_results(run_dir, "test", {name: {**top1.summary(), "weights": weights}})
        self._tested.clear()

    def _greedy(self, problems: Sequence[Problem]) -> list[Sample]:
        params = SamplingParams(max_new_tokens=self.problems.codec.max_tokens, temperature=0.0)
        samples = self.sample(problems, params)
        self.phases.take()
        return samples

    def teardown(self, stage: str) -> None:
        """Stop the sandbox's processes and what the sampler runs."""
        self.sandbox.close()
        self.sampler.close()
