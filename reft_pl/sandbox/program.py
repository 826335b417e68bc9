"""The zygote's child: confine itself, read a program, run it, write the result. Standard library only."""

from __future__ import annotations

import builtins
import contextlib
import gc
import os
import resource
import sys
import types
from collections.abc import Mapping

from reft_pl.sandbox import confinement, frames, plain, values
from reft_pl.sandbox.channel import read_all
from reft_pl.sandbox.seccomp import SeccompFilter, SeccompUnavailableError

_RESULT_FD = 3
_PLAIN_CPU_SECONDS = 60  # for all programs of a shared child: it ends even if its parent can no longer kill it


class ProgramRunner:
    """Confines its process and runs programs in it. Create it in the zygote, call it in a child.

    Args:
        scope: Modules in a program's global scope, by name.
        memory_mb: Memory a program may allocate on top of what is mapped now, in MiB.
        cpu_seconds: CPU time limit of a program, in seconds.
        allow_unsafe: Run without seccomp if the kernel lacks it.

    Raises:
        SeccompUnavailableError: this machine has no seccomp filters and ``allow_unsafe`` is not set.
    """

    def __init__(self, scope: Mapping[str, types.ModuleType], memory_mb: int, cpu_seconds: int, allow_unsafe: bool):
        self._scope = scope
        self._memory_bytes = confinement.address_space() + (memory_mb << 20)
        self._headroom_kb = memory_mb << 10
        self._cpu_seconds = cpu_seconds
        self._seccomp: SeccompFilter | None = None
        with contextlib.suppress(*([SeccompUnavailableError] if allow_unsafe else [])):
            self._seccomp = SeccompFilter(writable_fds=(1, 2, _RESULT_FD))
        self._number_types, self._expression_type = values.loaded_number_types()
        self._plain_builtins = {name: getattr(builtins, name) for name in ("__import__", *sorted(plain.FUNCTIONS))}

    def run_one(self, source_fd: int, result_fd: int) -> None:
        """Run the program read from ``source_fd``, write its result to ``result_fd``, and exit the process."""
        write, leave = os.write, os._exit  # bound before the program can replace them
        source = read_all(source_fd)
        self._confine(result_fd, self._cpu_seconds)
        code = self._compile(source)
        del source
        if isinstance(code, bytes):
            write(_RESULT_FD, code)
        else:
            module = types.ModuleType("__main__")
            sys.modules["__main__"] = module
            module.__dict__.update(self._scope)
            write(_RESULT_FD, frames.COMPILED)
            write(_RESULT_FD, self._outcome(code, module.__dict__))
        leave(0)  # no atexit handlers, no finalizers, no flushing of what the program printed

    def run_plain(self, requests: int) -> None:
        """Serve a socket until it closes: run plain programs, answer ``unsupported`` to others.

        Programs start at the same call depth as in ``run_one``, and each one's garbage is collected.
        """
        self._confine(requests, _PLAIN_CPU_SECONDS)
        with open(_RESULT_FD, "rb") as programs:
            while length := programs.read(frames.LENGTH.size):
                code = self._compile_plain(programs.read(*frames.LENGTH.unpack(length)))
                if not isinstance(code, bytes):
                    scope = {"__builtins__": self._plain_builtins.copy(), **self._scope}
                    code = frames.COMPILED + self._outcome(code, scope)
                    del scope
                gc.collect()
                os.write(_RESULT_FD, code)

    def _confine(self, result_fd: int, cpu_seconds: int) -> None:
        os.dup2(result_fd, _RESULT_FD)
        os.closerange(_RESULT_FD + 1, 256)  # covers the zygote's socket, the first free descriptor from 64 up
        confinement.limit_resources(self._memory_bytes, cpu_seconds)
        if self._seccomp is not None:
            self._seccomp.install()

    def _compile_plain(self, source: bytes) -> types.CodeType | bytes:
        """Compile a plain program, or return a failure frame (``unsupported`` if the program is not plain)."""
        try:
            text = frames.decode_source(source)
            if part := plain.beyond_plain(text):
                return frames.encode_failure("unsupported", part)
            return compile(text, "<program>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            return frames.encode_failure("syntax_error", type(error).__name__)
        except (MemoryError, RecursionError) as error:
            return frames.encode_failure("unsupported", type(error).__name__)

    def _outcome(self, code: types.CodeType, namespace: dict[str, object]) -> bytes:
        memory_error, base_exception = MemoryError, BaseException
        encode_failure, encode_value, type_name = frames.encode_failure, values.encode_value, values.type_name
        out_of_memory = encode_failure("memory")  # built while there is memory left
        is_callable, missing = callable, object()
        try:
            exec(code, namespace)  # the call that this package confines
            solution = namespace.get("solution", missing)
            if solution is missing or not is_callable(solution):
                return encode_failure("no_solution")
            return encode_value(solution(), self._number_types, self._expression_type)
        except memory_error:
            return out_of_memory
        except base_exception as error:
            return encode_failure("exception", type_name(error))

    def _compile(self, source: bytes) -> types.CodeType | bytes:
        resident_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            return compile(frames.decode_source(source), "<program>", "exec", dont_inherit=True)
        except MemoryError:
            # The parser also raises MemoryError for deep nesting; the memory actually used tells the two apart.
            used_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident_kb
            if used_kb > self._headroom_kb // 4:
                return frames.encode_failure("memory", "while compiling")
            return frames.encode_failure("syntax_error", "nested too deeply")
        except BaseException as error:
            return frames.encode_failure("syntax_error", type(error).__name__)
