"""`reft-pl rollout-server`: a vLLM engine that a trainer on other devices or another machine samples with."""

from __future__ import annotations

from argparse import ArgumentParser

from reft_pl.errors import UserError, told
from reft_pl.terminal import echo


def main(args: list[str]) -> int:
    """Serve until interrupted; returns the exit code."""
    parser = ArgumentParser(
        "reft-pl rollout-server",
        description="Run a vLLM engine for VLLMServerSampler. The trainer brings the model and its weights. Nothing is "
        "encrypted and nobody is asked for a password: listen where only the trainer reaches it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8642, help="port to listen at; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--max_rows", type=int, default=256, help="sequences decoded side by side (default: %(default)s)")
    parser.add_argument(
        "--max_model_len", type=int, default=2048, help="tokens of a prompt and its completion (default: %(default)s)"
    )
    parser.add_argument("--cache_gib", type=float, default=2.0, help="GiB for keys and values (default: %(default)s)")
    parser.add_argument("--enforce_eager", action="store_true", help="do not compile: starts faster, samples slower")
    options = parser.parse_args(args)

    from reft_pl.rollout.vllm.engine import EngineSettings, require_vllm  # noqa: PLC0415 (--help must not wait for torch)
    from reft_pl.rollout.vllm.server import RolloutServer  # noqa: PLC0415

    require_vllm()
    settings = EngineSettings(options.max_rows, options.max_model_len, options.cache_gib, options.enforce_eager)
    try:
        server = RolloutServer((options.host, options.port), settings)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen at {options.host}:{options.port} ({told(error)}): choose another --port") from error
    with server:
        host, port = server.server_address[:2]
        echo(f"rollout server at http://{host!s}:{port}; end it with Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            echo("ended")
    return 0
