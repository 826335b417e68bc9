"""Resolve a command line to its config without running it."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from reft_pl.cli import main

Composed = Callable[..., dict[str, Any]]


@pytest.fixture
def composed(capsys: pytest.CaptureFixture[str]) -> Composed:
    """Return the resolved config of a verb for shipped configs, given by name, and further arguments."""

    def compose(verb: str, names: str, *arguments: str) -> dict[str, Any]:
        configs = [argument for name in names.split() for argument in ("--config", f"configs/{name}.yaml")]
        code = main([verb, *configs, *arguments, "--print_config"])
        printed = capsys.readouterr()
        assert code == os.EX_OK, printed.err
        config: dict[str, Any] = yaml.safe_load(printed.out)
        return config

    return compose
