"""Ranks as forks of a process with all imports: as real as launched ranks, at a fraction of the cost.

``python forked.py SCENARIO ARGUMENT ...`` calls ``scenarios.SCENARIO(*arguments)``, in which ``on_ranks`` forks.
It must be a separate process: one that has computed gradients before cannot fork.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def on_ranks(n: int, function: Callable[[], object]) -> None:
    """Call ``function`` in ``n`` forks with the environment of ranks; fails if one of them fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    sys.stdout.flush()
    for rank in range(n):
        pid = os.fork()
        if pid == 0:
            if n > 1:
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(n), "NODE_RANK": "0"}
                from lightning.fabric.utilities.rank_zero import rank_zero_only

                rank_zero_only.rank = rank
                sys.modules["lightning.pytorch.utilities.rank_zero"].rank_zero_only.rank = rank
            code = 1
            try:
                code = int(function() or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(pid)
    codes: list[int] = []
    for _ in children:
        pid, status = os.wait()
        codes.append(os.waitstatus_to_exitcode(status))
        if codes[-1]:  # the others would wait for it for ever, as a launcher knows
            for other in children:
                with suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
    if any(codes):
        raise SystemExit(f"ranks ended with {codes}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import scenarios

    getattr(scenarios, sys.argv[1])(*sys.argv[2:])
