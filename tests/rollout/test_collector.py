"""Programs run during decoding, and samples keep the order of the problems."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from reft_pl.data.codec import Codec
from reft_pl.data.tokenizer import load_tokenizer
from reft_pl.formats import PythonProgram
from reft_pl.models.loading import load_policy
from reft_pl.models.policy import Policy
from reft_pl.models.settings import PolicySettings
from reft_pl.rollout.base import Sampler
from reft_pl.rollout.collector import Collector
from reft_pl.rollout.phases import PhaseTimer
from reft_pl.sandbox.base import DeferredExecution, Execution, Sandbox
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Completion, ExecutionResult, Problem, SampleRequest, SamplingParams, Status, StopReason

PROBLEMS = [Problem(f"q{i}", f"What is {i} plus 1?", i + 1.0) for i in range(3)]


class ScriptedSampler(Sampler):
    """Yield programs that return 10 * problem + sample, in reverse order, and record events in between."""

    def __init__(self, codec: Codec, events: list[str]) -> None:
        self.codec, self.events = codec, events

    def sync(self, policy: Policy) -> None:
        self.events.append("sync")

    def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
        for place, request in reversed(list(enumerate(requests))):
            for index in reversed(range(len(request.seeds))):
                self.events.append("written")
                program = f'def solution():\n    """{PROBLEMS[place].question}"""\n    return {10 * place + index}'
                example = self.codec.example(replace(PROBLEMS[place], solution=program))
                ids = example.ids[len(self.codec.prompt_ids(PROBLEMS[place])) :]
                yield Completion(request.id, index, ids, (0.0,) * len(ids), StopReason.EOS)


class Noting(Sandbox):
    """A sandbox that records when programs arrive."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        self.events.append("run")
        return [ExecutionResult(Status.NO_SOLUTION) for _ in programs]

    def begin(self) -> Execution:
        events = self.events

        class Noted(DeferredExecution):
            def submit(self, program: str) -> None:
                events.append("submitted")
                super().submit(program)

        return Noted(self)


@pytest.fixture
def codec(micro_model: Path) -> Codec:
    return Codec(load_tokenizer(str(micro_model)), PythonProgram(), 100, 160)


def collect(codec: Codec, sandbox: Sandbox, events: list[str], micro_model: Path) -> list[float | str | None]:
    policy = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"))
    collector = Collector(codec, ScriptedSampler(codec, events), sandbox, PhaseTimer())
    samples = collector.sample(policy, PROBLEMS, SamplingParams(40), lambda problem, index: index, n=2)
    assert [sample.problem for sample in samples] == [problem for problem in PROBLEMS for _ in range(2)]
    return [sample.result.value for sample in samples]


def test_samples_are_in_the_order_of_the_problems(codec: Codec, micro_model: Path) -> None:
    sandbox = CPythonSandbox(workers=1)
    try:
        assert collect(codec, sandbox, [], micro_model) == [0.0, 1.0, 10.0, 11.0, 20.0, 21.0]
    finally:
        sandbox.close()


def test_a_program_is_submitted_before_the_next_completion_is_written(codec: Codec, micro_model: Path) -> None:
    events: list[str] = []
    collect(codec, Noting(events), events, micro_model)
    assert events == ["sync", *["written", "submitted"] * 6, "run"]


def test_requests_stop_at_every_stop_id_and_leave_out_ids_without_a_token(micro_model: Path) -> None:
    class Asked(ScriptedSampler):
        def stream(self, requests: Sequence[SampleRequest]) -> Iterator[Completion]:
            for request in requests:
                assert request.eos_ids == (2, 7)
                assert request.params.suppressed == ((len(codec.tokenizer), 1600),)
            yield from super().stream(requests)

    codec = Codec(load_tokenizer(str(micro_model)), PythonProgram(), 100, 160, stop_ids=(7, 10**6))
    policy = load_policy(PolicySettings(str(micro_model), from_scratch=True, dtype="float32"))
    policy.vocab_size = 1600
    sandbox = CPythonSandbox(workers=1)
    try:
        collector = Collector(codec, Asked(codec, []), sandbox, PhaseTimer())
        assert len(collector.sample(policy, PROBLEMS, SamplingParams(40), lambda problem, index: index)) == len(PROBLEMS)
    finally:
        sandbox.close()
