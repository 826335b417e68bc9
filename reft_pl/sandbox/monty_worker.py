"""The process that owns one Monty interpreter, so that neither its crash, nor a huge result, nor a hang reaches the trainer.

Needs pydantic-monty and the standard library only. The interpreter itself is one more process, which pydantic-monty starts,
supervises and replaces; every program gets a fresh session in it.
"""

from __future__ import annotations

import builtins
import re
import time

from pydantic_monty import (
    CollectString,
    Monty,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
    ResourceLimits,
)

from reft_pl.sandbox import frames, values
from reft_pl.sandbox.channel import Channel

GRACE_SECONDS = 0.25
"""How long after its time limit the interpreter may take to notice, before it is killed."""

_ATTEMPTS = 3
_MAX_OUTPUT_BYTES = 1 << 20
_PREFIX, _CALL = "import math\n", "\n\nsolution()"  # the blank line ends a program that stops at a line continuation

_OWN_FAULTS = (
    ArithmeticError,
    AssertionError,
    IndexError,
    KeyError,
    KeyboardInterrupt,
    StopIteration,
    UnboundLocalError,
)
"""Exceptions that only the program can be to blame for. Any other may stand for something that Monty lacks."""

_DIFFERENT = re.compile(
    r"^[ \t]*(?:(?:import|from)\b[^\n#]*\bre\b|async\b)"
    r"|\bround\s*\(|\bset\s*\(|\bfrozenset\b"
    r"|\{[^{}:]*[^{}:\s][^{}:]*\}",  # a set, or a replacement field of an f-string, which only costs time
    re.MULTILINE,
)
"""Where Monty answers otherwise than CPython.

Its ``re`` does not backtrack, it returns a coroutine as text, it rounds ties of the decimal digits and not of the binary
number (``round(2.675, 2)``), and its sets have another order.
"""

_UNDEFINED = re.compile(r"name '(\w+)' is not defined")
_ELSEWHERE = frozenset({"sympy", "numpy", "np", "mpmath"})


def main(timeout_seconds: float, memory_mb: int, recursion_depth: int) -> None:
    """Serve programs until the trainer closes the socket.

    Args:
        timeout_seconds: Wall time of one program, its compilation included.
        memory_mb: What a program may allocate, in MiB.
        recursion_depth: Deepest nesting of calls.
    """
    channel = Channel()
    limits = ResourceLimits(
        max_feed_duration_secs=timeout_seconds,
        max_total_sleep_secs=timeout_seconds,
        max_memory=memory_mb << 20,
        max_recursion_depth=recursion_depth,
    )
    pool = Monty(
        min_processes=1,
        max_processes=1,
        request_timeout=timeout_seconds + GRACE_SECONDS,
        feed_duration_limit_grace=GRACE_SECONDS,
    )
    with pool:
        channel.reply(frames.encode_failure("unsupported", frames.READY), 0.0)
        while (source := channel.receive()) is not None:
            start = time.perf_counter()
            body = run_program(pool, source, limits)
            channel.reply(body, time.perf_counter() - start)


def run_program(pool: Monty, source: bytes, limits: ResourceLimits) -> bytes:
    """Run one program in a session of its own and return the body of its frame."""
    try:
        text = frames.decode_source(source)
        if _DIFFERENT.search(text):
            return frames.encode_failure("unsupported", "re or async")
        value = _feed(pool, _PREFIX + text + _CALL, limits)
    except UnicodeEncodeError as error:  # a lone surrogate
        return frames.encode_failure("syntax_error", type(error).__name__)
    except MontyCrashedError as error:
        return frames.encode_failure("timeout" if error.timed_out else "worker_died")
    except MontyRuntimeError as error:
        return _failure(error, call_line=text.count("\n") + 4)
    except MontyError as error:
        return frames.encode_failure("syntax_error" if isinstance(error, MontySyntaxError) else "unsupported", str(error))
    return values.encode_value(value, _NUMBER_TYPES)


def _feed(pool: Monty, code: str, limits: ResourceLimits) -> object:
    """Value of the code's last expression, tried again when the interpreter dies for another reason than its time."""
    for attempt in range(_ATTEMPTS):
        try:
            with pool.checkout(limits=limits, os_policy={"random_start": {"seed": 0}}) as session:
                return session.feed_run(code, print_callback=CollectString(_MAX_OUTPUT_BYTES))
        except MontyCrashedError as error:  # noqa: PERF203 (three rounds at most)
            if error.timed_out or attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _failure(error: MontyRuntimeError, call_line: int) -> bytes:
    """Tell what a program is to blame for from what Monty lacks."""
    exception = error.exception()
    name = type(exception).__name__
    if isinstance(exception, TimeoutError):
        return frames.encode_failure("timeout")
    if isinstance(exception, MemoryError):
        output_full = f"> {_MAX_OUTPUT_BYTES} bytes" in str(exception)
        return frames.encode_failure("output_too_large" if output_full else "memory")
    if isinstance(exception, NameError) and (match := _UNDEFINED.search(str(exception))):
        if match[1] == "solution" and [frame.line for frame in error.traceback()] == [call_line]:
            return frames.encode_failure("no_solution")
        known_to_cpython = hasattr(builtins, match[1]) or match[1].startswith("__") or match[1] in _ELSEWHERE
        return frames.encode_failure("unsupported" if known_to_cpython else "exception", name)
    return frames.encode_failure("exception" if isinstance(exception, _OWN_FAULTS) else "unsupported", f"{name}: {exception}")


_NUMBER_TYPES, _ = values.loaded_number_types()
