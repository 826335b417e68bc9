"""A rollout engine behind HTTP, for an engine on other devices or another machine than the trainer's.

``PUT /model`` starts an engine for an architecture, ``PUT /weights`` gives it weights and answers with their digest, and
``POST /completions`` samples with the weights of a digest, a line of JSON a completion, as soon as each has ended. It serves
one caller at a time and knows no passwords: let it listen where only the trainer reaches it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

from reft_pl.errors import UserError
from reft_pl.rollout.vllm.engine import Engine, EngineSettings
from reft_pl.rollout.vllm.wire import Readable, completion_to_json, read_weights, request_from_json

logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """The caller asks for what cannot be, said in one sentence, with an HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class RolloutServer(HTTPServer):
    """Holds the engine, and what is known of its weights.

    Args:
        address: Host and port to listen at; port 0 takes a free one.
        settings: How engines use this machine.
    """

    def __init__(self, address: tuple[str, int], settings: EngineSettings) -> None:
        super().__init__(address, Handler)
        self.settings = settings
        self.engine: Engine | None = None
        self.model: Mapping[str, Any] | None = None
        self.digest: str | None = None

    def start(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Have an engine for ``model`` (config and number format); the one that runs is kept where it is for the same."""
        if self.engine is None or self.model != model:
            self.drop()
            try:
                self.engine = Engine(model["config"], model["dtype"], self.settings)
            except UserError as error:
                raise RefusedError(400, str(error)) from error
            self.model = model
        return {"max_model_len": self.engine.max_model_len}

    def load(self, body: Readable) -> dict[str, Any]:
        """Give the engine weights. Where that fails there are none, until it succeeds."""
        self.digest = None
        self.digest = self._running().load(read_weights(body))
        return {"digest": self.digest}

    def stream(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Completions with the weights that the caller names, and no others; a last line says that there are no more."""
        engine = self._running()
        if self.digest != asked["digest"]:
            raise RefusedError(409, f"the engine has the weights {self.digest}, and {asked['digest']} are asked for")
        requests = [request_from_json(item) for item in asked["requests"]]

        def lines() -> Iterator[dict[str, Any]]:
            for completion in engine.stream(requests):
                yield completion_to_json(completion)
            yield {"done": True}

        return lines()

    def drop(self) -> None:
        """Give up an engine of which nobody knows what state it is in."""
        if self.engine is not None:
            self.engine.close()
        self.engine = self.model = self.digest = None

    def _running(self) -> Engine:
        if self.engine is None:
            raise RefusedError(409, "the server has no engine yet, or lost it")
        return self.engine


class Handler(BaseHTTPRequestHandler):
    """One request."""

    @property
    def rollouts(self) -> RolloutServer:
        """The server that this request came to."""
        return cast("RolloutServer", self.server)

    def do_PUT(self) -> None:
        """Model or weights."""
        self._answer({"/model": self._model, "/weights": lambda: self.rollouts.load(self.rfile)})

    def do_POST(self) -> None:
        """Completions."""
        self._answer({"/completions": lambda: self.rollouts.stream(self._json())})

    def _model(self) -> dict[str, Any]:
        return self.rollouts.start(self._json())

    def _json(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, places: Mapping[str, Any]) -> None:
        if self.path not in places:
            self._send(404, {"error": f"there is no {self.path}"})
            return
        try:
            answer = places[self.path]()
        except RefusedError as refused:
            self._send(refused.status, {"error": str(refused)})
        except ConnectionError:
            raise
        except Exception as error:
            logger.exception("%s failed", self.path)
            self.rollouts.drop()
            self._send(500, {"error": f"{type(error).__name__}: {error}"})
        else:
            self._send(200, answer)

    def _send(self, status: int, answer: dict[str, Any] | Iterator[dict[str, Any]]) -> None:
        """Lines of JSON; a failure after the first is a line of its own."""
        self.send_response(status)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        lines = iter([answer]) if isinstance(answer, dict) else answer
        while True:
            try:
                line = next(lines)
            except StopIteration:
                return
            except Exception as error:
                logger.exception("the engine failed")
                self.rollouts.drop()
                line = {"error": f"{type(error).__name__}: {error}"}
            self.wfile.write(json.dumps(line).encode() + b"\n")

    def handle(self) -> None:
        """Serve the caller; one that goes away is no reason to stop."""
        try:
            super().handle()
        except (ConnectionError, EOFError) as error:
            logger.warning("the caller went away (%s)", error)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name)
        """Say it where everything else is said."""
        logger.debug(format, *args)
