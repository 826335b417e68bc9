"""The sampler that uses a vLLM engine over HTTP (``reft-pl rollout-server``)."""

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

NO_SERVER = "the server at model.sampler.url is not a `reft-pl rollout-server`: check host and port"
MAX_LINE_BYTES = 2**26
"""Maximum length of a line in the response of a rollout server."""


class VLLMServerSampler(EngineSampler):
    """Samples with the engine of a ``reft-pl rollout-server``, on other devices or another machine.

    The sampler sends all weights over HTTP after every update. It reads the server's token from the environment variable
    ``REFT_PL_TOKEN``. With an http:// address, neither the token nor the weights are encrypted.

    vLLM uses its own random generators: samples differ from those of ``InProcessSampler``, but are reproducible with the same
    engine on the same machine.

    Args:
        url: Address of the server, or a list with one address per training process.
        timeout: Seconds without data from the server after which the run stops. The first samples may take a minute or more.
        max_mismatch: Reject a rollout if the mean difference between the log-probabilities of engine and policy is larger,
            in nats per token. In bfloat16, about 0.05 is rounding.
        ca_file: CA certificates (PEM) that verify an https:// server; by default those of the system.
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
            raise UserError(f"model.sampler needs a url and a positive timeout, got url {url!r} and timeout {timeout}")
        self._addresses = [_address(url) for url in self.urls]
        self.timeout = timeout
        self.ca_file = ca_file

    @property
    def engines(self) -> int:
        """Number of engines, one per address."""
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
        """Send a request, and yield the response, which the caller reads line by line.

        Raises:
            UserError: The server is unreachable, disconnects, or refuses the request.
        """
        url = self.urls[this_rank()]
        token = given_token()
        if token is None:
            raise UserError(
                f"the rollout server at {url} requires a token: set {TOKEN_VARIABLE} to the one that it printed on start"
            )
        connection = self._connection()
        try:
            connection.connect()
            with suppress(BrokenPipeError, ConnectionResetError):  # a server that refuses responds before it reads the body
                connection.request(method, path, body, {"Content-Length": str(size), "Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            if answer.status in {401, 403}:
                raise UserError(f"the rollout server at {url} denies access: {_reason(answer)}")
            yield answer
        except SSLCertVerificationError as error:
            raise UserError(
                f"the certificate of the rollout server at {url} is not trusted ({error.verify_message}): set "
                f"model.sampler.ca_file to the certificate of the authority that signed it"
            ) from error
        except (OSError, HTTPException, EOFError) as error:
            self._digest = None
            raise engine_gone(f"the rollout server at {url} is unreachable or disconnected", error) from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        """Return an unopened connection to the server of this training process.

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
            raise UserError(
                f"model.sampler.ca_file {self.ca_file!r} is not a file of PEM certificates ({described(error)})"
            ) from error
        return HTTPSConnection(host, place.port, timeout=self.timeout, context=context)


def _address(url: str) -> SplitResult:
    """Parse the address of a server.

    Raises:
        UserError: It is not a valid address, or it contains credentials, which would be stored and logged with it.
    """
    try:
        place = urlsplit(url)
        _ = place.port  # raises if it is not a number
    except ValueError as error:
        raise UserError(f"model.sampler.url {url!r}: {error}") from error
    if "@" in place.netloc or place.query or place.fragment:
        raise UserError(f"model.sampler.url must contain only scheme, host and port: set {TOKEN_VARIABLE} for the token")
    if place.scheme not in {"http", "https"} or not place.hostname or place.path not in {"", "/"}:
        raise UserError(f"model.sampler.url must begin with http:// or https:// and name a host, got {url!r}")
    return place


def _reason(answer: HTTPResponse) -> str:
    """Read from the response why the server refuses the request."""
    try:
        return str(json.loads(answer.readline(MAX_LINE_BYTES))["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"


def _line(answer: HTTPResponse) -> dict[str, Any]:
    """Read the next line of a response.

    Raises:
        UserError: The line reports an error, or the server is not a rollout server.
        EOFError: The response ended before or within the line.
    """
    text = answer.readline(MAX_LINE_BYTES)
    if not text.endswith(b"\n"):
        raise EOFError("the response is incomplete")
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(NO_SERVER) from error
    if not isinstance(line, dict):
        raise UserError(NO_SERVER)
    if "error" in line:
        raise UserError(f"the rollout server stopped: {line['error']}; restart it and repeat the command")
    return line
