"""Collect a rollout: sample solutions, execute them, compute rewards, and score log-probabilities."""

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
from reft_pl.reward.rewards import Rewards
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
    """Executes responses as they arrive, in any order.

    Args:
        cot_format: Extracts the program or the answer from a response.
        execution: Runs the programs. It receives only the program, never the problem.
    """

    def __init__(self, cot_format: CoTFormat, execution: Execution) -> None:
        self._format = cot_format
        self._execution = execution
        self._read: list[ExecutionResult | None] = []  # None: a program; the execution has its result

    def submit(self, problem: Problem, response: str) -> None:
        """Start the program of a response, or parse its text at once; ``response`` includes the lines given in the prompt."""
        if not self._format.runs_programs:
            self._read.append(self._format.answer(problem, response))
            return
        program = self._format.program(problem, response)
        self._read.append(_NO_PROGRAM if program is None else None)
        if program is not None:
            self._execution.submit(program)

    def results(self) -> list[ExecutionResult]:
        """Wait for all programs, and return one result per response in the order of ``submit``."""
        ran = iter(self._execution.results())
        return [next(ran) if result is None else result for result in self._read]


SeedOf = Callable[[Problem, int], int]
"""Maps a problem and a sample index to a seed."""


class Collector:
    """Samples solutions from a policy, executes each while others are being decoded, and scores them.

    Args:
        codec: Converts problems to prompts, and token ids to responses.
        sampler: Generates completions.
        sandbox: Runs programs.
        phases: Times the phases.
    """

    def __init__(self, codec: Codec, sampler: Sampler, sandbox: Sandbox, phases: PhaseTimer) -> None:
        self.codec = codec
        self.sampler = sampler
        self.sandbox = sandbox
        self.phases = phases

    def sample(
        self, policy: Policy, problems: Sequence[Problem], params: SamplingParams, seed_of: SeedOf, n: int = 1
    ) -> list[Sample]:
        """Sample ``n`` completions per problem with the policy's current weights, and execute them.

        Prompt and completion together have at most ``codec.max_tokens`` tokens, and the completion at most
        ``params.max_new_tokens``.

        Returns:
            ``n`` adjacent samples per problem, in the order of the problems.
        """
        params = replace(params, suppressed=self.codec.vocabulary.unused(policy.vocab_size))
        requests = [self._request(i, problem, params, seed_of, n) for i, problem in enumerate(problems)]
        asked = {request.id: (problem, request) for request, problem in zip(requests, problems, strict=True)}
        written: list[tuple[Completion, str]] = []
        self.sampler.sync(policy)
        with self.sandbox.begin() as execution:
            running = ResponseExecution(self.codec.format, execution)
            with self.phases.phase("rollout", len(problems) * n) as progress:
                for completion in self.sampler.stream(requests):
                    problem, _ = asked[completion.request_id]
                    text = self.codec.response_text(problem, completion.token_ids)
                    running.submit(problem, text)  # its program runs while others are being decoded
                    written.append((completion, text))
                    progress.advance(1, len(completion.token_ids))
            with self.phases.phase("execute", len(written)) as progress:
                results = running.results()
                progress.advance(len(results))
        samples = {}
        for (completion, text), result in zip(written, results, strict=True):
            problem, request = asked[completion.request_id]
            sample = Sample(problem, completion, text, result, request.prompt_ids)
            samples[completion.request_id, completion.index] = sample
        return [samples[request.id, index] for request in requests for index in range(n)]

    def reward(self, policy: Policy, rewards: Rewards, samples: Sequence[Sample]) -> Rollout:
        """Return the samples as tokens on the policy's device, with the reward of each.

        Raises:
            UserError: A reward raises an exception, or returns neither a finite number nor None for a sample.
        """
        rewarded, sums = rewards.score(samples, self.codec.format)
        outcome = torch.tensor(sums, dtype=torch.float32, device=policy.device)
        return Rollout(tuple(rewarded), self.tokens(samples).to(policy.device), outcome)

    def score(
        self, policy: Policy | None, reference: Policy, rollout: Rollout, *, temperature: float, micro_batch_tokens: int
    ) -> ScoredRollout:
        """Score a rollout under the policy and the frozen reference, without gradient.

        Args:
            policy: The policy that generated the samples, with unchanged weights. None uses the sampler's log-probabilities
                and recorded values instead; the negative log-probabilities then estimate the entropy.
            reference: The reference policy of the KL penalty.
            rollout: The samples.
            temperature: Sampling temperature; log-probabilities are those of the distribution at this temperature.
            micro_batch_tokens: Maximum size of a scoring micro-batch: rows times the longest row, in tokens.

        Raises:
            UserError: Sampler and policy differ by more than the sampler allows.
        """
        samples, tokens = rollout.samples, rollout.tokens
        reported = self._at_actions(rollout, [sample.completion.logprobs for sample in samples])
        scorers = [reference] if policy is None else [policy, reference]
        with self.phases.phase("score", len(scorers) * len(samples)) as progress:
            scores = []
            for scorer in scorers:
                scores.append(score_in_batches(scorer, tokens, max_tokens=micro_batch_tokens, temperature=temperature))
                progress.advance(len(samples), int(tokens.attention_mask.sum()))
        if policy is None:
            recorded = [s.completion.values for s in samples if s.completion.values is not None]
            scores.insert(0, Scores(reported, -reported, self._at_actions(rollout, recorded) if recorded else None))
        current, ref = scores
        values = torch.zeros_like(current.logprobs) if current.values is None else current.values
        scored = ScoredRollout(
            samples, tokens, rollout.outcome, current.logprobs, ref.logprobs, values, current.entropy,
            reported, left_out=rollout.left_out,
        )  # fmt: skip
        self.sampler.check_rollout(scored)
        return scored

    def tokens(self, samples: Sequence[Sample]) -> TokenBatch:
        """Return prompts and completions as one padded batch, [B, T]; the sampled tokens are its actions."""
        sequences = [(*sample.prompt_ids, *sample.completion.token_ids) for sample in samples]
        return collate(sequences, [len(sample.prompt_ids) for sample in samples], self.codec.pad_id)

    def _at_actions(self, rollout: Rollout, reported: Sequence[Sequence[float]]) -> Tensor:
        """Place the sampler's number for each sampled token at its action, [B, T]; 0 elsewhere."""
        placed = torch.zeros(rollout.tokens.input_ids.shape, dtype=torch.float32)
        for row, (sample, numbers) in enumerate(zip(rollout.samples, reported, strict=True)):
            first = len(sample.prompt_ids) - 1
            placed[row, first : first + len(numbers)] = torch.tensor(numbers)
        return placed.to(rollout.tokens.input_ids.device)

    def _request(self, i: int, problem: Problem, params: SamplingParams, seed_of: SeedOf, n: int) -> SampleRequest:
        prompt = self.codec.prompt_ids(problem)
        room = min(params.max_new_tokens, self.codec.max_tokens - len(prompt))
        bounded = replace(params, max_new_tokens=room)
        seeds = tuple(seed_of(problem, index) for index in range(n))
        return SampleRequest(f"{i}:{problem.id}", prompt, bounded, seeds, eos_ids=self.codec.stop_ids)
