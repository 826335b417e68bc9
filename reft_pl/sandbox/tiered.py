from reft_pl.sandbox.cpython import CPythonSandbox


class TieredSandbox(CPythonSandbox):
    """Deprecated alias of ``CPythonSandbox`` for configs from before 0.2; removed in 0.3."""
