"""Attacks on the confined CPython. No program in this file ever runs outside the sandbox."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reft_pl.sandbox import cpython as cpython_module
from reft_pl.sandbox import frames
from reft_pl.types import Status

VALUE, EXCEPTION, TIMEOUT, MEMORY = Status.OK, Status.EXCEPTION, Status.TIMEOUT, Status.MEMORY

SANE = "def solution():\n return 6 * 7"

BODY = r"bytes((200,)) + __import__('struct').pack('<d', 4.0)"  # claims the answer 4


ATTACKS = {
    # Forging the program's own result, or another program's
    "own body with a value that return could give": (f"import os\nos.write(3, {BODY})\nos._exit(0)", {VALUE}),
    "own body and another": (f"import os\nos.write(3, {BODY})\ndef solution():\n return 1", {Status.BAD_FRAME}),
    "body on every descriptor": (
        f"import os\nfor fd in range(256):\n try: os.write(fd, {BODY})\n except OSError: pass\nos._exit(0)",
        {VALUE},
    ),
    **{
        f"status {status} forged": (f"import os\nos.write(3, bytes(({tag},)))\nos._exit(0)", {Status.BAD_FRAME})
        for tag, status in enumerate(frames.STATUSES)
        if status in {"ok", "syntax_error", "timeout", "killed", "died", "no_result", "bad_frame", "worker_died", "unsupported"}
    },
    "two results": ("import os\nos.write(3, b'x')\ndef solution():\n return 1", {Status.BAD_FRAME}),
    "much output": ("import os\nos.write(3, b'x' * 5000)\nos._exit(0)", {Status.OUTPUT_TOO_LARGE}),
    "pipe filled to the brim": ("import os\nos.write(3, b'x' * 10**7)", {TIMEOUT}),
    "result pipe closed": ("import os\nos.close(3)\ndef solution():\n return 1", {Status.DIED}),
    "result pipe closed, then a loop": ("import os\nos.close(3)\nwhile 1: pass", {TIMEOUT}),
    "another descriptor in place of the pipe": (
        "import os\nos.close(3)\nos.dup2(1, 3)\ndef solution():\n return 1",
        {Status.DIED},
    ),
    "writing from an exit handler": (
        "import atexit, os\natexit.register(os.write, 3, b'x' * 40)\ndef solution():\n return 5",
        {VALUE},
    ),
    "exit without a word": ("import os\nos._exit(0)", {Status.NO_RESULT}),
    "exit with a code": ("import os\nos._exit(3)", {Status.DIED}),
    "sys.exit": ("import sys\ndef solution():\n sys.exit(0)", {EXCEPTION}),
    "SystemExit at the top": ("raise SystemExit(0)", {EXCEPTION}),
    # Patching the code that encodes the result
    "builtins patched": (
        "import builtins\nfor n in ('type','issubclass','isinstance','float','int','str','len'):\n"
        " setattr(builtins, n, lambda *a: 42.0)\ndef solution():\n return 'no answer'",
        {Status.NON_NUMERIC, Status.DIED},
    ),
    "struct and os patched": (
        "import os, struct\nos.write = os._exit = lambda *a: 0\nstruct.pack = lambda *a: b'x' * 8\ndef solution():\n return 5",
        {VALUE},
    ),
    "trace function that raises": (
        "import sys\ndef solution():\n sys.setprofile(lambda *a: 1/0)\n return 1",
        {EXCEPTION, Status.DIED},
    ),
    "modules gone": ("import sys\nsys.modules.clear()\ndef solution():\n return 5", {VALUE, EXCEPTION, Status.DIED}),
    "every object found by gc emptied": (
        "import gc\nfor o in gc.get_objects():\n if type(o) in (dict, list, set):\n"
        "  try: o.clear()\n  except BaseException: pass\ndef solution():\n return 5",
        {VALUE, EXCEPTION, Status.DIED, Status.KILLED, Status.NO_RESULT, Status.NO_SOLUTION},
    ),
    "class that says it is a float": (
        "class E:\n __class__ = property(lambda s: float)\n def __float__(s): return 42.0\ndef solution():\n return E()",
        {Status.WRONG_TYPE},
    ),
    "comparison that never ends": (
        "class E(int):\n def __eq__(s, o):\n  while 1: pass\n"
        " __lt__ = __bool__ = __sub__ = __float__ = __eq__\n __hash__ = None\ndef solution():\n return E(5)",
        {VALUE},
    ),
    "finalizer that never ends": (
        "class E(int):\n def __del__(s):\n  while 1: pass\ndef solution():\n return E(5)",
        {VALUE, TIMEOUT},
    ),
    "exception whose name raises": (
        "class M(type):\n @property\n def __name__(c): raise SystemExit\nclass X(Exception, metaclass=M): pass\nraise X",
        {EXCEPTION},
    ),
    "generator": ("def solution():\n yield 1", {Status.WRONG_TYPE}),
    "class instead of a function": ("class solution: pass", {Status.WRONG_TYPE}),
    "a number instead of a function": ("solution = 5", {Status.NO_SOLUTION}),
    "huge integer": ("def solution():\n return 10**5000", {Status.TOO_LARGE}),
    # Accessing files, processes and the network
    "own environment": ("def solution():\n return len(open('/proc/self/environ').read())", {EXCEPTION}),
    "own memory": ("def solution():\n return len(open('/proc/self/mem', 'rb').read(1))", {EXCEPTION}),
    "zygote's memory": ("import os\ndef solution():\n return open(f'/proc/{os.getppid()}/mem', 'rb').tell()", {EXCEPTION}),
    "stat": ("import os\ndef solution():\n return os.stat('/').st_ino", {EXCEPTION}),
    "working folder": ("import os\ndef solution():\n return len(os.getcwd())", {EXCEPTION}),
    "pipe": ("import os\ndef solution():\n return os.pipe()[0]", {EXCEPTION}),
    "socket": ("import _socket\ndef solution():\n return _socket.socket().fileno()", {EXCEPTION}),
    "module from disk": ("import wave\ndef solution():\n return 1", {EXCEPTION}),
    "our own modules": ("import reft_pl.sandbox.frames\ndef solution():\n return 1", {EXCEPTION}),
    "subprocess": ("import os\ndef solution():\n return os.posix_spawn('/bin/true', ['true'], {})", {EXCEPTION}),
    "higher limits": (
        "import resource\ndef solution():\n resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return 1",
        {EXCEPTION},
    ),
    "thread": ("import threading\ndef solution():\n threading.Thread(target=print).start(); return 1", {EXCEPTION}),
    "stopping itself": ("import signal\nsignal.raise_signal(signal.SIGSTOP)\nwhile 1: pass", {EXCEPTION, TIMEOUT}),
    "killing itself": ("import os, signal\ndef solution():\n os.kill(os.getpid(), signal.SIGKILL); return 1", {EXCEPTION}),
    "killing its group": ("import os\ndef solution():\n os.killpg(0, 9); return 1", {EXCEPTION}),
    "abort": ("import os\nos.abort()", {Status.KILLED}),
    "null pointer": ("import ctypes\nctypes.string_at(0)", {EXCEPTION}),
    # Exhausting resources
    "recursion in C": ("x = []\nfor _ in range(10**5): x = [x]\ndef solution():\n return len(repr(x))", {EXCEPTION}),
    "recursion in C without a limit": (
        "import sys\nsys.setrecursionlimit(10**8)\nclass A:\n def __getattr__(s, n): return getattr(s, n + 'x')\n"
        "def solution():\n return A().x",
        {EXCEPTION, Status.KILLED, MEMORY, TIMEOUT},
    ),
    "parser": ("x = " + "[" * 50_000, {Status.SYNTAX_ERROR}),
    "indentation": ("".join(" " * i + "if 1:\n" for i in range(150)), {Status.SYNTAX_ERROR}),
    "constant folding": (
        "def solution():\n return " + "*".join(["(2**127)"] * 4000) + " % 7",
        {VALUE, TIMEOUT, Status.SYNTAX_ERROR},
    ),
    "integer of digits": ("def solution():\n return int('9' * 10**7)", {EXCEPTION, TIMEOUT}),
    "shift": ("def solution():\n return 1 << 10**12", {MEMORY, EXCEPTION}),
    "arrays": ("import numpy\ndef solution():\n return float(numpy.ones(10**10).sum())", {MEMORY}),
    "sleep with signals off": (
        "import signal, time\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n except Exception: pass\n"
        "while 1:\n try: time.sleep(9)\n except BaseException: pass",
        {TIMEOUT},
    ),
    "exception handler for ever": ("while 1:\n try: raise MemoryError\n except BaseException: pass", {TIMEOUT}),
    "descriptors for ever": ("import os\ndef solution():\n return sum(1 for _ in range(10**6) if os.dup(0))", {EXCEPTION}),
    "surrogate": ("x = '\udcff'\ndef solution():\n return 1", {Status.SYNTAX_ERROR}),
}


def test_attacks_fail(cpython):
    results = dict(zip(ATTACKS, cpython.run([source for source, _ in ATTACKS.values()]), strict=True))
    wrong = {
        name: (results[name].status.value, results[name].detail)
        for name, (_, expected) in ATTACKS.items()
        if results[name].status not in expected or results[name].value not in (None, 5.0, 0.0, 1.0, 4.0)
    }
    assert not wrong
    assert max(result.seconds for result in results.values()) < 1.5
    assert [result.value for result in cpython.run([SANE] * 4)] == [42.0] * 4


def test_files_stay_untouched(cpython, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("here", encoding="utf-8")
    name = str(victim)
    results = cpython.run(
        [
            f"import os\nos.unlink({name!r})\ndef solution():\n return 1",
            f"open({name!r}, 'w').write('gone')\ndef solution():\n return 1",
            f"def solution():\n return len(open({name!r}).read())",
            f"import os\ndef solution():\n os.mkdir({name + '2'!r}); return 1",
        ]
    )
    assert [result.status for result in results] == [EXCEPTION] * 4
    assert victim.read_text(encoding="utf-8") == "here"
    assert list(tmp_path.iterdir()) == [victim]


def test_the_zygote_has_no_privileges(cpython):
    """Defence in depth, read from outside: the zygote itself runs under no_new_privs, without capabilities."""
    cpython.run([SANE])
    for pid in cpython.worker_pids:
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
        assert fields["NoNewPrivs"] == "1"
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        assert fields["Threads"] == "1"


def test_nothing_runs_past_its_deadline(cpython):
    cpython.run(["while 1: pass", *(f"def solution():\n while {i}: pass" for i in range(1, 4))])
    zygotes = set(cpython.worker_pids)
    left = [stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:2] for stat in Path("/proc").glob("[0-9]*/stat")]
    ours = [(state, parent) for state, parent in left if int(parent) in zygotes]
    assert len(ours) <= len(zygotes)  # the shared children
    assert {state for state, _ in ours} <= {"S"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else; the other tests run as that already")
def test_an_ordinary_user_is_confined_too():
    script = (
        "import os, sys\nsys.path.insert(0, sys.argv[1])\nassert os.getuid() == 65534\n"
        "from reft_pl.sandbox.worker import Worker\n"
        "worker = Worker((0.5, 256, (), False, False), ())\n"
        "for body in ('return 42', 'import os; return os.fork()', 'return open(\"/etc/passwd\")'):\n"
        " print(*worker.run(f'def solution(): {body}'.encode(), 5)[0])\nworker.kill()\n"
    )
    package = Path(cpython_module.__file__).parents[2]
    nobody = {"user": 65534, "group": 65534, "extra_groups": ()}
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, package], **nobody, capture_output=True, text=True, check=False, cwd="/"
        )
    except PermissionError:
        pytest.skip("nobody may not run this Python installation")
    if "No module named" in done.stderr:
        pytest.skip("nobody may not read this Python installation")
    assert done.stdout.splitlines() == ["ok 42.0 ", "exception None PermissionError", "exception None PermissionError"]
