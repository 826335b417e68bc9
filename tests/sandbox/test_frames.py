"""Frames: what goes in comes out, and nothing else is taken for a frame."""

import io
import math

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
def test_an_answer_that_is_not_finite_is_no_frame(value):
    with pytest.raises(frames.FrameError):
        frames.decode_body(frames.encode_number(value))


@pytest.mark.parametrize("letter", ["f", "A", "0"])
def test_a_letter_that_is_no_choice_is_no_frame(letter):
    with pytest.raises(frames.FrameError):
        frames.decode_body(frames.encode_choice(letter))


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 7))
def test_frames_are_read_one_by_one_however_the_bytes_arrive(bodies, at_a_time):
    stream = io.BytesIO(b"".join(map(frames.pack, bodies)))

    def receive(count):
        return stream.read(min(count, at_a_time))

    assert [frames.read_frame(receive, 64) for _ in bodies] == bodies
    assert frames.read_frame(receive, 64) is None


def test_a_frame_cut_short_is_the_end():
    assert frames.read_frame(io.BytesIO(frames.pack(b"12345")[:-1]).read, 64) is None


def test_a_length_beyond_the_limit_is_refused_before_it_is_read():
    with pytest.raises(frames.FrameError, match="65 bytes"):
        frames.read_frame(io.BytesIO(frames.pack(b"x" * 65)).read, 64)


@given(st.text(alphabet=st.characters()))
def test_sources_survive_lone_surrogates_included(source):
    assert frames.decode_source(frames.encode_source(source)) == source
