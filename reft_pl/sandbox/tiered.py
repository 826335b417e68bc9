from reft_pl.sandbox.cpython import CPythonSandbox


class TieredSandbox(CPythonSandbox):
    """``CPythonSandbox`` under its name before 0.2, for configs that name it. To be removed in 0.3."""
