"""`reft-pl solve`: ask a model questions, execute its programs, and let samples vote."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, nullcontext, redirect_stdout, suppress

from rich.console import Console
from rich.text import Text

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError
from reft_pl.escapes import one_line
from reft_pl.terminal import echo


def main(args: list[str]) -> int:
    """Answer the questions and return the exit code."""
    options = _parser().parse_args(args)
    try:
        _check(options)
        _answer_questions(options)
    except KeyboardInterrupt:
        echo(error=True)  # so that the shell prompt starts on a new line
        return 130
    except BrokenPipeError:  # the reader closed the pipe; discard the buffer so that exit is silent
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "reft-pl solve",
        description="Ask a model questions: the given one, one per line of standard input, or typed at a prompt.",
    )
    parser.add_argument("model", help="a run folder, its hf/ folder, any transformers folder, or a hub id")
    parser.add_argument("question", nargs="?", help="default: standard input, or a prompt if that is a terminal")
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="sample K solutions and vote; 1 is greedy")
    parser.add_argument(
        "--reranker", metavar="FOLDER", help="run folder or export of a reranker; its scores weight the votes of the samples"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="sampling temperature (default: 1, greedy for one sample)"
    )
    parser.add_argument(
        "--top_k", type=int, default=50, metavar="K", help="sample from the K likeliest tokens, 0 is all (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of all samples (default: %(default)s)")
    parser.add_argument("--max_tokens", type=int, metavar="N", help="prompt and solution together (default: the model's limit)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype (default: float32 for float32 weights, else the fastest on this machine)",
    )
    parser.add_argument(
        "--format",
        metavar="FORM",
        help="PythonProgram, NaturalLanguage, Chat, or your my_file.MyForm (default: the model's format, else PythonProgram)",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run Python code that comes with the model, with your rights (default: refuse such a model)",
    )
    parser.add_argument("--no_bos", action="store_true", help="omit BOS, as in the training of the paper's released models")
    parser.add_argument("--json", action="store_true", help="print one JSON object per question")
    return parser


def _check(options: Namespace) -> None:
    if options.samples < 1:
        raise UserError(f"--samples is {options.samples}, but must be at least 1")
    if options.reranker and options.samples == 1:
        raise UserError("--reranker chooses among several samples: add --samples K with K of at least 2")
    if options.temperature is not None and not 0 <= options.temperature < float("inf"):
        raise UserError(f"--temperature is {options.temperature}, but must be a number of at least 0")
    if options.top_k < 0:
        raise UserError(f"--top_k is {options.top_k}, but must be at least 0")
    if options.max_tokens is not None and options.max_tokens < 2:
        raise UserError(f"--max_tokens is {options.max_tokens}, but prompt and solution need at least 2")
    if options.question is not None and not options.question.strip():
        raise UserError("the question is empty: write it in quotes, or leave it out to be asked for it")


def _answer_questions(options: Namespace) -> None:
    interactive = options.question is None and sys.stdin.isatty()
    notes = Console(stderr=True)
    with notes.status(Text(f"loading {one_line(options.model)}")):
        from reft_pl.commands.loading import load_solver  # noqa: PLC0415 (torch takes seconds to import)
        from reft_pl.commands.solution_view import as_json, show  # noqa: PLC0415

        solver = load_solver(options)
    with closing(solver):
        for question in _questions(options.question):
            try:
                with notes.status("solving"):
                    solution = solver.solve(question)
            except UserError as error:
                if not interactive:
                    raise
                echo(error, error=True)
                continue
            if options.json:
                echo(as_json(solution, solver.codec.format))
            else:
                show(solution, solver.codec.format, with_question=options.question is None and not interactive)


def _questions(given: str | None) -> Iterator[str]:
    """Yield the question of the command line, else the lines of standard input; in a terminal, prompt for them."""
    if given is not None:
        lines: Iterator[str] = iter([given])
    elif sys.stdin.isatty():
        lines = iter(_typed, "")
    else:
        lines = (line for line in sys.stdin if line.strip())
    try:
        for line in lines:
            line.encode()  # Python decodes invalid bytes of arguments as lone surrogates
            yield line.strip()
    except UnicodeError as error:
        raise UserError(f"a question is not UTF-8 ({error}): convert it first") from None


def _typed() -> str:
    """Prompt for a question; return an empty string at the end of input."""
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 (gives input() its keys and history, where the platform has it)
    # The prompt must not mix with the answers.
    with nullcontext() if sys.stdout.isatty() else redirect_stdout(sys.stderr):
        try:
            return input("question> ").strip()
        except EOFError:
            echo()
            return ""
