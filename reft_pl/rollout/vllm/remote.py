"""Rollouts by a vLLM engine behind HTTP (``reft-pl rollout-server``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLCertVerificationError, create_default_context
from typing import Any
from urllib.parse import SplitResult, urlsplit

from torch import Tensor

from reft_pl.errors import UserError, described
from reft_pl.rollout.vllm.access import TOKEN_VARIABLE, given_token
from reft_pl.rollout.vllm.engine_sampler import EngineSampler, engine_gone, this_rank
from reft_pl.rollout.vllm.wire import completion_from_json, request_to_json, weights_message
from reft_pl.types import Completion, SampleRequest

NO_SERVER = "what answers at model.sampler.url is no `reft-pl rollout-server`: check host and port"
MAX_LINE_BYTES = 2**26
"""A longer line of an answer does not come from a rollout server."""


class VLLMServerSampler(EngineSampler):
    """Samples with the engine of a ``reft-pl rollout-server``, on other devices or another machine.

    The weights go there after every update, in one piece over HTTP. The server's token is read from the environment variable
    ``REFT_PL_TOKEN``; with an http:// address it and the weights are not encrypted. Samples are drawn by vLLM's generators:
    they are others than ``InProcessSampler``'s, and repeat with the same engine on the same machine.

    Args:
        url: Where the server listens. Several training processes need a server each: a list, one address a process.
        timeout: Seconds without a word from the server after which it is given up. Its first samples may take a minute or more.
        max_mismatch: Mean difference between the engine's log-probabilities and the policy's (nats a token) above which a
            rollout is refused. In bfloat16 some 0.05 is rounding.
        ca_file: Certificates (PEM) that an https:// server is trusted by; the system's by default.
    """

    def __init__(
        self,
        url: str | list[str] = "http://127.0.0.1:8642",
        timeout: float = 600.0,
        max_mismatch: float = 0.2,
        ca_file: str | None = None,
    ) -> None:
        super().__init__(max_mismatch)
        self.urls = [url] if isinstance(url, str) else url
        if not self.urls or timeout <= 0:
            raise UserError(f"model.sampler needs a url and a positive timeout, got {url!r} and {timeout}")
        self._addresses = [_address(url) for url in self.urls]
        self.timeout = timeout
        self.ca_file = ca_file

    @property
    def engines(self) -> int:
        """One behind each address."""
        return len(self.urls)

    def _start(self, config: dict[str, Any], dtype: str) -> int:
        return int(self._ask("PUT", "/model", {"config": config, "dtype": dtype})["max_model_len"])

    def _load(self, weights: Iterable[tuple[str, Tensor]]) -> str:
        size, pieces = weights_message(weights)
        with self._answer("PUT", "/weights", pieces, size) as answer:
            return str(_line(answer)["digest"])

    def _stream(self, requests: Sequence[SampleRequest], digest: str) -> Iterator[Completion]:
        body = json.dumps({"digest": digest, "requests": [request_to_json(request) for request in requests]}).encode()
        with self._answer("POST", "/completions", [body], len(body)) as answer:
            while not (line := _line(answer)).get("done"):
                try:
                    completion = completion_from_json(line)
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(NO_SERVER) from error
                yield completion

    def _ask(self, method: str, path: str, question: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(question).encode()
        with self._answer(method, path, [body], len(body)) as answer:
            return _line(answer)

    @contextmanager
    def _answer(self, method: str, path: str, body: Iterable[bytes], size: int) -> Iterator[HTTPResponse]:
        """The server's answer, to be read line by line.

        Raises:
            UserError: the server is not there, goes away, or refuses.
        """
        url = self.urls[this_rank()]
        token = given_token()
        if token is None:
            raise UserError(
                f"the rollout server at {url} wants its token: set {TOKEN_VARIABLE} to what it printed when it started"
            )
        connection = self._connection()
        try:
            connection.connect()
            with suppress(BrokenPipeError, ConnectionResetError):  # a server that refuses answers before it has the body
                connection.request(method, path, body, {"Content-Length": str(size), "Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            if answer.status in {401, 403}:
                raise UserError(f"the rollout server at {url} refuses this caller: {_reason(answer)}")
            yield answer
        except SSLCertVerificationError as error:
            raise UserError(
                f"the certificate of the rollout server at {url} is not trusted ({error.verify_message}): set "
                f"model.sampler.ca_file to the certificate of who signed it"
            ) from error
        except (OSError, HTTPException, EOFError) as error:
            self._digest = None
            raise engine_gone(f"the rollout server at {url} is not there or went away", error) from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        """A connection to this process's server, not yet opened.

        Raises:
            UserError: ``ca_file`` cannot be read.
        """
        place = self._addresses[this_rank()]
        host = place.hostname or ""
        if place.scheme == "http":
            return HTTPConnection(host, place.port, timeout=self.timeout)
        try:
            context = create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise UserError(f"model.sampler.ca_file {self.ca_file!r} holds no certificates ({described(error)})") from error
        return HTTPSConnection(host, place.port, timeout=self.timeout, context=context)


def _address(url: str) -> SplitResult:
    """Where to connect to.

    Raises:
        UserError: that is no address of a server, or it holds what would be stored and logged with it.
    """
    try:
        place = urlsplit(url)
        _ = place.port  # raises where it is no number
    except ValueError as error:
        raise UserError(f"model.sampler.url {url!r}: {error}") from error
    if "@" in place.netloc or place.query or place.fragment:
        raise UserError(f"model.sampler.url must be a scheme, a host and a port alone: set {TOKEN_VARIABLE} for the token")
    if place.scheme not in {"http", "https"} or not place.hostname or place.path not in {"", "/"}:
        raise UserError(f"model.sampler.url must begin with http:// or https:// and name a host, got {url!r}")
    return place


def _reason(answer: HTTPResponse) -> str:
    """Why the server refuses."""
    try:
        return str(json.loads(answer.readline(MAX_LINE_BYTES))["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"


def _line(answer: HTTPResponse) -> dict[str, Any]:
    """The next line of an answer.

    Raises:
        UserError: the server says why it cannot, or is none of ours.
        EOFError: there is none, or half of one.
    """
    text = answer.readline(MAX_LINE_BYTES)
    if not text.endswith(b"\n"):
        raise EOFError("the answer ends before its end")
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(NO_SERVER) from error
    if not isinstance(line, dict):
        raise UserError(NO_SERVER)
    if "error" in line:
        raise UserError(f"the rollout server stopped: {line['error']}; start it anew and give the same command again")
    return line
