"""Load a policy, sample and execute solutions with it, and evaluate it with greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reft_pl.errors import UserError
from reft_pl.evaluation.files import update_results, write_predictions
from reft_pl.evaluation.top1 import Top1
from reft_pl.formats.answers import is_correct
from reft_pl.models.fingerprint import weights_id
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy, ValueKind
from reft_pl.modules.run_module import RunModule
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.collector import Collector
from reft_pl.rollout.inprocess.sampler import InProcessSampler
from reft_pl.rollout.seeds import counter_seed
from reft_pl.rollout.vllm import VLLMSampler, VLLMServerSampler  # noqa: F401 (lets configs name them without their path)
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.strategies.zero import whole_weights
from reft_pl.types import Problem, Sample, SamplingParams


class Solver:
    """Solves problems with the policy of a module.

    The module registers the policy as ``policy``, so checkpoints name its weights ``policy.*``; the solver only refers to it.

    Args:
        module: The module that provides data, seed, phases and ranks.
        sampler: Generates completions; None is the in-process sampler.
        sandbox: Runs the programs in completions; None is confined CPython.
    """

    policy: Policy

    def __init__(self, module: RunModule, sampler: Sampler | None = None, sandbox: Sandbox | None = None) -> None:
        self.sampler = sampler or InProcessSampler()
        self.sandbox = sandbox or CPythonSandbox()
        self._module = module
        self._tested: dict[int, list[Sample]] = {}

    def load(self, value: ValueKind = "none") -> Policy:
        """Load the policy, and check that data, sampler and sandbox work with it.

        Args:
            value: Which value function to add to it.

        Raises:
            UserError: the problems do not fit the model, or the sampler or the sandbox cannot run here.
        """
        settings, codec = self._module.policy_settings, self._module.problems.codec
        self.policy = load_policy(settings, value, seed=self._module.seed)
        codec.check_embeddings(self.policy.embedding_rows, settings.init_from)
        positions = self.policy.positions
        if positions is not None and codec.max_tokens > positions + 1:  # the model never reads the last token
            raise UserError(
                f"data.max_tokens is {codec.max_tokens}, but {settings.init_from} has only {positions} positions: lower "
                f"data.max_tokens"
            )
        self.sampler.check(self.policy)
        if codec.format.runs_programs:
            self.sandbox.check()
        return self.policy

    @property
    def weights(self) -> str:
        """Digest of the policy's current weights."""
        return weights_id(self.policy.lm)

    @property
    def collector(self) -> Collector:
        """A collector with this solver's sampler and sandbox and the prompt format of the data."""
        return Collector(self._module.problems.codec, self.sampler, self.sandbox, self._module.phases)

    def sample(self, problems: Sequence[Problem], params: SamplingParams, n: int = 1, first: int = 0) -> list[Sample]:
        """Sample and execute ``n`` solutions per problem.

        Seeds depend only on the run seed, stage, epoch, problem and sample index.

        Args:
            problems: The problems of this rank.
            params: Sampling parameters.
            n: Samples per problem.
            first: Index of the first sample, which is the number of samples of these problems that this epoch already has.

        Returns:
            ``n`` samples per problem, next to each other and in the order of the problems.
        """
        module = self._module

        def seed_of(problem: Problem, index: int) -> int:
            return counter_seed(module.seed, module.stage, module.trainer.current_epoch, problem.id, first + index)

        with whole_weights(module.trainer.strategy):
            return self.collector.sample(self.policy, problems, params, seed_of, n)

    def greedy(self, problems: Sequence[Problem]) -> list[Sample]:
        """Decode greedily and execute one solution per problem; discard the timings."""
        params = SamplingParams(max_new_tokens=self._module.problems.codec.max_tokens, temperature=0.0)
        samples = self.sample(problems, params)
        self._module.phases.take()
        return samples

    def test(self, problems: Sequence[Problem], test_set: int) -> None:
        """Solve a batch of the test set with this index, and keep the samples for ``report_test``."""
        self._tested.setdefault(test_set, []).extend(self.greedy(problems))

    def report_test(self) -> None:
        """Write Top-1 of each test set, over all ranks, to the log, ``results.json`` and ``predictions/``."""
        module = self._module
        run_dir, weights = Path(module.trainer.default_root_dir), self.weights
        for index, (name, problems) in enumerate(module.problems.test_problems.items()):
            samples = [sample for of_rank in module.ranks.gather(self._tested.get(index, [])) for sample in of_rank]
            place = {problem.id: i for i, problem in enumerate(problems)}
            samples.sort(key=lambda sample: place[sample.problem.id])
            verdicts = [is_correct(sample) for sample in samples]
            top1 = Top1(sync_on_compute=False).to(module.device)
            top1.update(verdicts)
            module.log(f"test/top1/{name}", top1.compute())
            if module.trainer.is_global_zero:
                write_predictions(run_dir / "predictions" / f"{name}.jsonl", samples, verdicts)
                update_results(run_dir, "test", {name: {**top1.summary(), "weights": weights}})
        self._tested.clear()

    def close(self) -> None:
        """Stop the processes of sandbox and sampler."""
        self.sandbox.close()
        self.sampler.close()
