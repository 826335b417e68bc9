"""Session-wide sandbox fixtures, so that zygotes start only once."""

import pytest

from reft_pl.sandbox.cpython import CPythonSandbox, PlainSandbox


def _shared(make):
    @pytest.fixture(scope="session")
    def sandbox():
        made = make(timeout_seconds=0.5, workers=4)
        yield made
        made.close()

    return sandbox


cpython = _shared(CPythonSandbox)
plain = _shared(PlainSandbox)
