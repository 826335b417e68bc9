"""The public names of `reft_pl`: lazy imports, complete, the same for type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reft_pl


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, reft_pl; print({'torch', 'lightning', 'transformers'} & set(sys.modules), len(dir(reft_pl)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("set() ")


@pytest.mark.parametrize("name", reft_pl.__all__)
def test_a_public_name_exists(name: str) -> None:
    assert getattr(reft_pl, name).__name__ == name
    assert name in dir(reft_pl)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(str(reft_pl.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {(alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {(name, module) for module, names in reft_pl._PUBLIC.items() for name in names}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'PPO'"):
        _ = reft_pl.PPO
