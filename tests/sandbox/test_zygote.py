"""How a zygote reads what a dead child left behind."""

import os
import signal

import pytest

from reft_pl.sandbox import frames, zygote

NONCE = bytes(range(16))
GOOD = frames.pack(NONCE + frames.encode_number(42.0))


def exited(code):
    return code << 8


@pytest.mark.parametrize(
    ("data", "wait_status", "status", "value"),
    [
        (GOOD, exited(0), "ok", 42.0),
        (frames.pack(NONCE + frames.encode_choice("d")), exited(0), "ok", "d"),
        (frames.pack(NONCE + frames.encode_failure("memory")), exited(0), "memory", None),
        (GOOD + b"x", exited(0), "bad_frame", None),
        (b"x" + GOOD, exited(0), "bad_frame", None),
        (GOOD[:-1], exited(0), "bad_frame", None),
        (frames.pack(NONCE[::-1] + frames.encode_number(42.0)), exited(0), "bad_frame", None),
        (frames.pack(frames.encode_number(42.0)), exited(0), "bad_frame", None),
        (frames.pack(NONCE + frames.encode_number(float("nan"))), exited(0), "bad_frame", None),
        (b"x" * 5000, exited(0), "output_too_large", None),
        (b"", exited(0), "no_result", None),
        (b"", exited(3), "died", None),
        (b"", int(signal.SIGSEGV), "killed", None),
        (b"", int(signal.SIGXCPU), "timeout", None),
    ],
)
def test_what_a_child_left(data, wait_status, status, value):
    assert frames.decode_body(zygote._judge(data, NONCE, wait_status))[:2] == (status, value)


def test_only_a_kill_from_outside_is_worth_another_try():
    assert zygote._judge(b"", NONCE, int(signal.SIGKILL)) == zygote._KILLED_FROM_OUTSIDE
    assert zygote._judge(b"", NONCE, int(signal.SIGSEGV)) != zygote._KILLED_FROM_OUTSIDE


def test_the_wait_statuses_above_are_the_systems():
    assert os.WIFEXITED(exited(3))
    assert os.WEXITSTATUS(exited(3)) == 3
    assert os.WTERMSIG(int(signal.SIGSEGV)) == signal.SIGSEGV
