"""`reft-pl solve`: put questions to a model, see its programs run, and let samples vote."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import closing, nullcontext, redirect_stdout, suppress

from rich.console import Console
from rich.text import Text

from reft_pl.errors import UserError
from reft_pl.escapes import one_line
from reft_pl.terminal import echo


def main(args: list[str]) -> int:
    """Answer the questions; returns the exit code."""
    options = _parser().parse_args(args)
    try:
        _check(options)
        _answer_questions(options)
    except KeyboardInterrupt:
        echo(error=True)  # the shell's prompt begins on a new line
        return 130
    except BrokenPipeError:  # whoever read the answers has left; what is still buffered must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "reft-pl solve",
        description="Put questions to a model: the one given, those of standard input (one a line), or those you type.",
    )
    parser.add_argument("model", help="a run folder, its hf/ folder, any transformers folder, or a hub id")
    parser.add_argument("question", nargs="?", help="left out: standard input, or a prompt if that is a terminal")
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="sample K solutions and vote; 1 is greedy")
    parser.add_argument("--temperature", type=float, metavar="T", help="of sampling (default: 1, and greedy for one sample)")
    parser.add_argument(
        "--top_k", type=int, default=50, metavar="K", help="tokens to draw from, 0 is all (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all draws (default: %(default)s)")
    parser.add_argument("--max_tokens", type=int, metavar="N", help="prompt and solution together (default: the model's limit)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="number format (default: that of the weights, as far as this machine is fast in it)",
    )
    parser.add_argument(
        "--format",
        metavar="FORM",
        help="PythonProgram, NaturalLanguage, Chat, or your own my_file.MyForm (default: the model's own, else PythonProgram)",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run Python code that comes with the model, with your rights (default: refuse such a model)",
    )
    parser.add_argument("--no_bos", action="store_true", help="begin without BOS, as the paper's released models were trained")
    parser.add_argument("--json", action="store_true", help="print one JSON object a question")
    return parser


def _check(options: Namespace) -> None:
    if options.samples < 1:
        raise UserError(f"--samples is {options.samples}, but must be at least 1")
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
        from reft_pl.commands.solution_view import as_json, show  # noqa: PLC0415
        from reft_pl.commands.solver import load_solver  # noqa: PLC0415 (torch takes seconds to import)

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
    """The question of the command line, else the lines of standard input; a person is prompted for each."""
    if given is not None:
        lines: Iterator[str] = iter([given])
    elif sys.stdin.isatty():
        lines = iter(_typed, "")
    else:
        lines = (line for line in sys.stdin if line.strip())
    try:
        for line in lines:
            line.encode()  # arguments and, in some locales, input hold what is no text as lone surrogates
            yield line.strip()
    except UnicodeError as error:
        raise UserError(f"a question is not UTF-8 ({error}): convert it first") from None


def _typed() -> str:
    """What a person answers to the prompt; nothing at the end of input."""
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 (gives input() its keys and history, where the platform has it)
    # The prompt must not go where the answers go.
    with nullcontext() if sys.stdout.isatty() else redirect_stdout(sys.stderr):
        try:
            return input("question> ").strip()
        except EOFError:
            echo()
            return ""
