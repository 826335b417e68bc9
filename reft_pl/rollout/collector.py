"""Sample, execute, reward, score: from problems to the experience that an update learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from reft_pl.data.batching import collate
from reft_pl.data.codec import Codec
from reft_pl.formats.base import CoTFormat
from reft_pl.models.policy import Policy
from reft_pl.models.scoring import score_in_batches
from reft_pl.reward.base import RewardFunction
from reft_pl.reward.outcomes import outcomes
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.phases import PhaseTimer
from reft_pl.sandbox.base import Execution, Sandbox
from reft_pl.types import (
    Completion,
    ExecutionResult,
    Problem,
    Rollout,
    Sample,
    SampleRequest,
    SamplingParams,
    ScoredRollout,
    Scores,
    Status,
    TokenBatch,
)

_NO_PROGRAM = ExecutionResult(Status.NO_SOLUTION, backend="text", detail="no program in the response")


class ResponseExecution:
    """Responses that are executed as they arrive, in any order.

    Args:
        cot_format: Says whether responses are programs, and finds the program or the answer in them.
        execution: Runs the programs. It sees the program alone, never the problem.
    """

    def __init__(self, cot_format: CoTFormat, execution: Execution) -> None:
        self._format = cot_format
        self._execution = execution
        self._read: list[ExecutionResult | None] = []  # None: a program, whose result the execution has

    def submit(self, problem: Problem, response: str) -> None:
        """Read a text at once; begin to run a program. ``response`` is whole, given lines included."""
        if not self._format.runs_programs:
            self._read.append(self._format.answer(problem, response))
            return
        program = self._format.program(problem, response)
        self._read.append(_NO_PROGRAM if program is None else None)
        if program is not None:
            self._execution.submit(program)

    def results(self) -> list[ExecutionResult]:
        """Wait for all programs and return one result per response, in the order of ``submit``."""
        ran = iter(self._execution.results())
        return [next(ran) if result is None else result for result in self._read]


SeedOf = Callable[[Problem, int], int]
"""The seed of a problem's i-th sample."""


class Collector:
    """Samples solutions from a policy, executes them while others are still decoded, and scores them.

    Args:
        codec: Turns problems into prompts and token ids into responses.
        sampler: Writes completions.
        sandbox: Runs programs.
        phases: Told of the phases as they pass.
    """

    def __init__(self, codec: Codec, sampler: Sampler, sandbox: Sandbox, phases: PhaseTimer) -> None:
        self.codec = codec
        self.sampler = sampler
        self.sandbox = sandbox
        self.phases = phases

    def sample(
        self, policy: Policy, problems: Sequence[Problem], params: SamplingParams, seed_of: SeedOf, n: int = 1
    ) -> list[Sample]:
        """Write ``n`` completions for each problem with the policy's weights as they are, and execute them.

        A completion may fill what the prompt leaves of the codec's ``max_tokens``; ``params.max_new_tokens`` bounds it
        further. Returns ``n`` samples a problem, next to each other and in the order of the problems.
        """
        params = replace(params, suppressed=self.codec.vocabulary.unused(policy.vocab_size))
        requests = [self._request(i, problem, params, seed_of, n) for i, problem in enumerate(problems)]
        problem_of = {request.id: problem for request, problem in zip(requests, problems, strict=True)}
        written: list[tuple[Problem, Completion, str]] = []
        self.sampler.sync(policy)
        with self.sandbox.begin() as execution:
            running = ResponseExecution(self.codec.format, execution)
            with self.phases.phase("rollout", len(problems) * n) as progress:
                for completion in self.sampler.stream(requests):
                    problem = problem_of[completion.request_id]
                    text = self.codec.response_text(problem, completion.token_ids)
                    running.submit(problem, text)  # its program runs while others are still decoded
                    written.append((problem, completion, text))
                    progress.advance(1, len(completion.token_ids))
            with self.phases.phase("execute", len(written)) as progress:
                results = running.results()
                progress.advance(len(results))
        samples = {
            (completion.request_id, completion.index): Sample(problem, completion, text, result)
            for (problem, completion, text), result in zip(written, results, strict=True)
        }
        return [samples[request.id, index] for request in requests for index in range(n)]

    def reward(self, policy: Policy, reward: RewardFunction, samples: Sequence[Sample]) -> Rollout:
        """The samples as tokens on the policy's device, with the outcome that the reward function gives each.

        Raises:
            UserError: it does not give every sample a finite number.
        """
        outcome = torch.tensor(outcomes(reward, samples), dtype=torch.float32, device=policy.device)
        return Rollout(tuple(samples), self.tokens(samples).to(policy.device), outcome)

    def score(
        self, policy: Policy | None, reference: Policy, rollout: Rollout, *, temperature: float, micro_batch_tokens: int
    ) -> ScoredRollout:
        """Score a rollout under the policy and the frozen reference, without gradient.

        Args:
            policy: The policy that wrote the samples, with its weights unchanged since; None takes what the sampler said, of
                which the negative log-probabilities estimate the entropy, and the values that it recorded.
            reference: The policy that the KL penalty refers to.
            rollout: What was written.
            temperature: At which it was written; log-probabilities are those of that distribution.
            micro_batch_tokens: Bound on rows times longest row of a scoring micro-batch.

        Raises:
            UserError: sampler and policy are further apart than the sampler allows.
        """
        samples, tokens = rollout.samples, rollout.tokens
        said = self._placed(rollout, [sample.completion.logprobs for sample in samples])
        scorers = [reference] if policy is None else [policy, reference]
        with self.phases.phase("score", len(scorers) * len(samples)) as progress:
            scores = []
            for scorer in scorers:
                scores.append(score_in_batches(scorer, tokens, max_tokens=micro_batch_tokens, temperature=temperature))
                progress.advance(len(samples), int(tokens.attention_mask.sum()))
        if policy is None:
            recorded = [s.completion.values for s in samples if s.completion.values is not None]
            scores.insert(0, Scores(said, -said, self._placed(rollout, recorded) if recorded else None))
        current, ref = scores
        values = torch.zeros_like(current.logprobs) if current.values is None else current.values
        scored = ScoredRollout(
            samples, tokens, rollout.outcome, current.logprobs, ref.logprobs, values, current.entropy,
            said, left_out=rollout.left_out,
        )  # fmt: skip
        self.sampler.check_rollout(scored)
        return scored

    def tokens(self, samples: Sequence[Sample]) -> TokenBatch:
        """Prompts and completions as one padded batch whose actions are the sampled tokens, [B, T]."""
        prompts = [self.codec.prompt_ids(sample.problem) for sample in samples]
        sequences = [(*prompt, *s.completion.token_ids) for prompt, s in zip(prompts, samples, strict=True)]
        return collate(sequences, [len(prompt) for prompt in prompts], self.codec.pad_id)

    def _placed(self, rollout: Rollout, said: Sequence[Sequence[float]]) -> Tensor:
        """What the sampler said of each sample's tokens, each at its action, [B, T]; 0 elsewhere."""
        placed = torch.zeros(rollout.tokens.input_ids.shape, dtype=torch.float32)
        for row, (sample, numbers) in enumerate(zip(rollout.samples, said, strict=True)):
            first = len(self.codec.prompt_ids(sample.problem)) - 1
            placed[row, first : first + len(numbers)] = torch.tensor(numbers)
        return placed.to(rollout.tokens.input_ids.device)

    def _request(self, i: int, problem: Problem, params: SamplingParams, seed_of: SeedOf, n: int) -> SampleRequest:
        prompt = self.codec.prompt_ids(problem)
        room = min(params.max_new_tokens, self.codec.max_tokens - len(prompt))
        bounded = replace(params, max_new_tokens=room)
        seeds = tuple(seed_of(problem, index) for index in range(n))
        return SampleRequest(f"{i}:{problem.id}", prompt, bounded, seeds, eos_ids=self.codec.stop_ids)
