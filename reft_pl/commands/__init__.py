"""Commands besides Lightning's verbs, each imported when called."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module


def _command(module: str) -> Callable[[list[str]], int]:
    def run(args: list[str]) -> int:
        code: int = import_module(f"reft_pl.commands.{module}").main(args)
        return code

    return run


COMMANDS = {
    name: _command(name.replace("-", "_"))
    for name in ("compare", "import-gguf", "prepare", "recipes", "report", "rollout-server", "solve")
}
