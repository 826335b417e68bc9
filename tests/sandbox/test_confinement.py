"""If the kernel refuses a confinement step, the zygote exits before serving: no program runs partly confined."""

import os
from types import SimpleNamespace

import pytest

from reft_pl.sandbox import confinement


def kernel(monkeypatch, **calls):
    monkeypatch.setattr(confinement, "_libc", SimpleNamespace(**calls))


def test_remaining_capabilities_are_an_error(monkeypatch):
    kernel(monkeypatch, prctl=lambda *arguments: -1, capset=lambda *arguments: -1)
    with pytest.raises(OSError, match="capabilities could not be dropped"):
        confinement.drop_capabilities()


def test_missing_no_new_privs_is_an_error(monkeypatch):
    kernel(monkeypatch, prctl=lambda *arguments: -1)
    with pytest.raises(OSError, match="no_new_privs was refused"):
        confinement.forbid_new_privileges()


@pytest.mark.parametrize("abi", [1, 4, 6])
def test_an_ineffective_ruleset_is_an_error(monkeypatch, abi):
    create = 444

    def syscall(number, attributes, *more):
        if number != create:
            return -1
        return abi if attributes is None else os.open(os.devnull, os.O_RDONLY)  # closed by the caller

    kernel(monkeypatch, syscall=syscall)
    with pytest.raises(OSError, match="Landlock refused to bind the process"):
        confinement.restrict_file_system()


def test_a_kernel_without_landlock_is_accepted(monkeypatch):
    kernel(monkeypatch, syscall=lambda *arguments: -1)
    confinement.restrict_file_system()
