"""Rollouts by a vLLM engine behind HTTP (``reft-pl rollout-server``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTP_PORT, HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor

from reft_pl.errors import UserError
from reft_pl.rollout.vllm.engine_sampler import EngineSampler, engine_gone, this_rank
from reft_pl.rollout.vllm.wire import completion_from_json, request_to_json, weights_message
from reft_pl.types import Completion, SampleRequest


class VLLMServerSampler(EngineSampler):
    """Samples with the engine of a ``reft-pl rollout-server``, on other devices or another machine.

    The weights go there after every update, in one piece over HTTP, without encryption. Samples are drawn by vLLM's generators:
    they are others than ``InProcessSampler``'s, and repeat with the same engine on the same machine.

    Args:
        url: Where the server listens. Several training processes need a server each: a list, one address a process.
        timeout: Seconds without a word from the server after which it is given up. Its first samples may take a minute or more.
        max_mismatch: Mean difference between the engine's log-probabilities and the policy's (nats a token) above which a
            rollout is refused. In bfloat16 some 0.05 is rounding.
    """

    def __init__(
        self, url: str | list[str] = "http://127.0.0.1:8642", timeout: float = 600.0, max_mismatch: float = 0.2
    ) -> None:
        super().__init__(max_mismatch)
        self.urls = [url] if isinstance(url, str) else url
        if not self.urls or timeout <= 0:
            raise UserError(f"model.sampler needs a url and a positive timeout, got {url!r} and {timeout}")
        self._addresses = [_host_and_port(url) for url in self.urls]
        self.timeout = timeout

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
                yield completion_from_json(line)

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
        rank = this_rank()
        connection = HTTPConnection(*self._addresses[rank], timeout=self.timeout)
        try:
            connection.request(method, path, body, {"Content-Length": str(size)})
            yield connection.getresponse()
        except (OSError, HTTPException, EOFError) as error:
            self._digest = None
            raise engine_gone(f"the rollout server at {self.urls[rank]} is not there or went away", error) from error
        finally:
            connection.close()


def _host_and_port(url: str) -> tuple[str, int]:
    """Where to connect to.

    Raises:
        UserError: that is no http:// url.
    """
    try:
        place = urlsplit(url)
        port = place.port or HTTP_PORT
    except ValueError as error:
        raise UserError(f"model.sampler.url {url!r}: {error}") from error
    if place.scheme != "http" or not place.hostname:
        raise UserError(f"model.sampler.url must begin with http:// and name a host, got {url!r}")
    return place.hostname, port


def _line(answer: HTTPResponse) -> dict[str, Any]:
    """The next line of an answer.

    Raises:
        UserError: the server says why it cannot, or is none of ours.
        EOFError: there is none, or half of one.
    """
    text = answer.readline()
    if not text.endswith(b"\n"):
        raise EOFError("the answer ends before its end")
    try:
        line: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise UserError("what answers at model.sampler.url is no `reft-pl rollout-server`: check host and port") from error
    if "error" in line:
        raise UserError(f"the rollout server stopped: {line['error']}; start it anew and give the same command again")
    return line
