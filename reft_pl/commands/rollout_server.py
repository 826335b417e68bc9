"""`reft-pl rollout-server`: serve a vLLM engine to a trainer on other devices or another machine."""

from __future__ import annotations

import ssl

from reft_pl.commands.command_parser import CommandParser
from reft_pl.errors import UserError, described
from reft_pl.terminal import echo


def main(args: list[str]) -> int:
    """Serve until interrupted and return the exit code."""
    parser = CommandParser(
        "reft-pl rollout-server",
        description="Run a vLLM engine for VLLMServerSampler. The trainer sends the model and its weights, authenticated by a "
        "token: the environment variable REFT_PL_TOKEN, or else a random one that is printed once. Beyond loopback the "
        "variable must be set; --certificate and --key encrypt the connection.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8642, help="port to listen at; 0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--allowed_host", action="append", default=[], metavar="NAME", help="additional host name that the trainer may use"
    )
    parser.add_argument("--certificate", metavar="FILE", help="serve HTTPS with this certificate (PEM)")
    parser.add_argument("--key", metavar="FILE", help="private key of the certificate (PEM, without a passphrase)")
    parser.add_argument("--max_rows", type=int, default=256, help="sequences decoded in parallel (default: %(default)s)")
    parser.add_argument(
        "--max_model_len", type=int, default=2048, help="tokens of prompt and completion together (default: %(default)s)"
    )
    parser.add_argument("--cache_gib", type=float, default=2.0, help="GiB of KV cache (default: %(default)s)")
    parser.add_argument("--enforce_eager", action="store_true", help="do not compile: starts faster, samples slower")
    options = parser.parse_args(args)

    tls = _tls(options.certificate, options.key)
    from reft_pl.rollout.vllm.access import given_token  # noqa: PLC0415 (--help must not wait for torch)
    from reft_pl.rollout.vllm.engine import EngineSettings, require_vllm  # noqa: PLC0415
    from reft_pl.rollout.vllm.server import RolloutServer  # noqa: PLC0415

    require_vllm()
    settings = EngineSettings(options.max_rows, options.max_model_len, options.cache_gib, options.enforce_eager)
    try:
        server = RolloutServer((options.host, options.port), settings, names=options.allowed_host, tls=tls)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen at {options.host}:{options.port} ({described(error)}): choose another --port"
        ) from error
    with server:
        host, port = server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else host
        echo(f"rollout server at {'http' if tls is None else 'https'}://{shown!s}:{port}; end it with Ctrl-C")
        if given_token() is None:
            echo(f"for the trainer: export REFT_PL_TOKEN={server.token}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            echo("ended")
    return 0


def _tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Load certificate and key for HTTPS; None if neither is given.

    Raises:
        UserError: One of them is missing, or they cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UserError("HTTPS needs a certificate and its key: give both --certificate and --key, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")  # empty, so that OpenSSL does not prompt
    except OSError as error:
        raise UserError(
            f"cannot serve HTTPS with {certificate} and {key} ({described(error)}): give a certificate and its key as PEM files"
        ) from error
    return context
