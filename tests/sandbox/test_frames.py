"""Frame bodies round-trip, other bytes are rejected, and a program cannot report a status that it cannot cause."""

import math
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.sandbox import frames
from reft_pl.types import Status


def test_tags_are_the_statuses():
    assert tuple(status.value for status in Status) == frames.STATUSES


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_bit_for_bit(value):
    status, read, _ = frames.decode_body(frames.encode_number(value))
    assert status == "ok"
    assert math.copysign(1, read) == math.copysign(1, value)
    assert read == value


@pytest.mark.parametrize("letter", "abcde")
def test_a_choice_survives(letter):
    assert frames.decode_body(frames.encode_choice(letter)) == ("ok", letter, "")


@given(st.sampled_from(frames.STATUSES[1:]), st.text())
def test_a_failure_survives_and_never_grows(status, detail):
    body = frames.encode_failure(status, detail)
    assert len(body) <= frames.MAX_BODY_BYTES
    read_status, value, _ = frames.decode_body(body)
    assert (read_status, value) == (status, None)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_sound_result_or_an_error(body):
    try:
        status, value, detail = frames.decode_body(body)
    except frames.FrameError:
        return
    assert (value is not None) == (status == "ok")
    assert status in frames.STATUSES
    assert isinstance(detail, str)
    if isinstance(value, float):
        assert math.isfinite(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_answer_is_not_a_frame(value):
    with pytest.raises(frames.FrameError):
        frames.decode_body(frames.encode_number(value))


@pytest.mark.parametrize("letter", ["f", "A", "0"])
def test_another_letter_is_not_a_frame(letter):
    with pytest.raises(frames.FrameError):
        frames.decode_body(frames.encode_choice(letter))


@pytest.mark.parametrize("refusal", ["", "no seccomp here", "x" * 5000])
def test_a_greeting_has_one_length(refusal):
    assert len(frames.greeting(refusal)) == frames.GREETING_BYTES
    assert frames.greeting(refusal).rstrip(b"\0").decode() == refusal[: frames.GREETING_BYTES]


def exited(code):
    return code << 8


GOOD = frames.COMPILED + frames.encode_number(42.0)


@pytest.mark.parametrize(
    ("data", "wait_status", "status", "value"),
    [
        (GOOD, exited(0), "ok", 42.0),
        (frames.COMPILED + frames.encode_choice("d"), exited(0), "ok", "d"),
        (frames.COMPILED + frames.encode_failure("memory"), exited(0), "memory", None),
        (frames.encode_failure("memory"), exited(0), "memory", None),
        (frames.encode_failure("syntax_error"), exited(0), "syntax_error", None),
        (frames.encode_number(42.0), exited(0), "bad_frame", None),
        (GOOD + b"x", exited(0), "bad_frame", None),
        (b"x" + GOOD, exited(0), "bad_frame", None),
        (GOOD[:-1], exited(0), "bad_frame", None),
        (frames.COMPILED + frames.encode_number(float("nan")), exited(0), "bad_frame", None),
        (b"x" * 5000, exited(0), "output_too_large", None),
        (b"", exited(0), "no_result", None),
        (frames.COMPILED, exited(0), "no_result", None),
        (GOOD, exited(3), "died", None),
        (b"", int(signal.SIGSEGV), "killed", None),
        (b"", int(signal.SIGXCPU), "timeout", None),
        (b"", frames.NOT_STARTED, "worker_died", None),
    ],
)
def test_output_and_exit_status_determine_the_result(data, wait_status, status, value):
    assert frames.judge(data, False, wait_status)[:2] == (status, value)
    assert frames.judge(data, True, wait_status)[:2] == ("timeout", None)


@given(st.binary(max_size=300))
def test_a_program_can_only_claim_what_it_could_cause(data):
    """Once a program runs, it may have written everything in the pipe after ``COMPILED``."""
    status, value, _ = frames.judge(frames.COMPILED + data, False, exited(0))
    assert (value is None) == (status != "ok")
    assert status not in {"syntax_error", "timeout", "killed", "died", "worker_died", "unsupported"}


def test_the_wait_statuses_match_the_system():
    assert os.WIFEXITED(exited(3))
    assert os.WEXITSTATUS(exited(3)) == 3
    assert os.WTERMSIG(int(signal.SIGSEGV)) == signal.SIGSEGV


@given(st.text(alphabet=st.characters()))
def test_sources_survive_lone_surrogates_included(source):
    assert frames.decode_source(frames.encode_source(source)) == source
