from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from reft_pl.cli import main
from reft_pl.cli.installed import bounds, version_of
from reft_pl.models.dtype import fastest_dtype


def test_this_machine_can_run_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("`reft-pl fit` can run here")
    assert f"auto is {fastest_dtype()}" in printed
    topics = {line.split()[0] for line in printed.splitlines() if line}
    assert {"system", "packages", "optional", "device", "dtype", "compiler", "sandbox"} <= topics
    assert "CPythonSandbox runs programs, confined" in printed


def test_without_seccomp_the_reason_and_the_other_sandbox_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reft_pl.sandbox.cpython.seccomp_available", lambda: False)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "CPythonSandbox does not run: CPythonSandbox needs seccomp" in printed
    assert "can run here, with --model.sandbox PlainSandbox" in printed


def test_without_any_sandbox_fit_cannot_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reft_pl.cli.doctor._PROGRAM", "def solution():\n    return nothing\n")
    assert main(["doctor"]) == 1
    assert "`reft-pl fit` cannot run here: no sandbox runs here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("no-such-package>=1", 1, "cannot run here: no-such-package is not installed: install reft-pl again"),
        ("torch<2", 0, "can run here, with packages outside the tested bounds"),
    ],
)
def test_packages_are_compared_with_their_bounds(
    line: str, code: int, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reft_pl.cli.installed.requires", lambda _: [line])
    assert main(["doctor"]) == code
    printed = capsys.readouterr().out
    assert sentence in printed
    assert ("outside their bounds: torch" in printed) == (code == 0)


def test_bounds_are_those_of_the_package() -> None:
    found = {name: (str(specifier), optional) for name, specifier, optional in bounds()}
    torch = next(Requirement(line) for line in requires("reft-pl") or [] if line.startswith("torch"))
    assert found["torch"] == (str(torch.specifier), False)
    assert found["vllm"][1], "an extra is optional"
    assert "ruff" not in found, "tools of developers are left out"
    assert version_of("no-such-package") is None
