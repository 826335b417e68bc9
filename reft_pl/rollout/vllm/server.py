"""The rollout server: a vLLM engine over HTTP, on other devices or another machine than the trainer.

``PUT /model`` starts an engine for an architecture. ``PUT /weights`` loads weights and returns their digest.
``POST /completions`` samples with the weights of a given digest and streams one line of JSON per completion. Callers send a
token. The engine receives only complete, valid requests, one at a time.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from ssl import SSLContext
from tempfile import NamedTemporaryFile, gettempdir
from threading import Lock
from typing import Any, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ValidationError

from reft_pl.errors import UserError, described
from reft_pl.rollout.vllm.access import TOKEN_VARIABLE, Access, RefusedError, given_token
from reft_pl.rollout.vllm.connections import BoundedHandler, BoundedServer
from reft_pl.rollout.vllm.engine import Engine, EngineSettings
from reft_pl.rollout.vllm.model_spec import ModelSpec
from reft_pl.rollout.vllm.wire import CompletionsMessage, ModelMessage, completion_to_json, read_weights

logger = logging.getLogger(__name__)

MAX_MODEL_BYTES = 2**20
"""Maximum size of the body of ``PUT /model``."""

MAX_COMPLETIONS_BYTES = 2**26
"""Maximum size of the body of ``POST /completions``: about ten million token ids."""

Lines: TypeAlias = Generator[dict[str, Any], None, None]
"""A response, line by line."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class RolloutServer(BoundedServer):
    """Owns the engine, and keeps track of its model and weights.

    Args:
        address: Host and port to listen on; port 0 selects a free one.
        settings: Resource settings of engines.
        token: Token that callers must send. None: the one in ``REFT_PL_TOKEN``, or a random one if the variable is not set.
        names: Host names under which callers may reach the server, in addition to the host it listens on.
        tls: Certificate and key; None serves plain HTTP.

    Raises:
        UserError: Other machines could connect, but no token was chosen.
        OSError: The server cannot listen on the address.
    """

    def __init__(
        self,
        address: tuple[str, int],
        settings: EngineSettings,
        token: str | None = None,
        names: Iterable[str] = (),
        tls: SSLContext | None = None,
    ) -> None:
        super().__init__(address, Handler, tls)
        self.settings = settings
        self.engine: Engine | None = None
        self.model: dict[str, Any] | None = None
        self.spec: ModelSpec | None = None
        self.digest: str | None = None
        self._turn = Lock()
        self._thread = ThreadPoolExecutor(1)  # CUDA streams and OpenMP threads are bound to the thread that uses an engine
        given = token or given_token()
        self.token = given or secrets.token_urlsafe(32)
        try:
            self.server_bind()
            self.access = Access(address[0], str(self.server_address[0]), self.token, names)
            _check_reach(address[0], self.access, given)
            self.server_activate()
        except BaseException:
            self.server_close()
            raise

    def start(self, body: bytes) -> Lines:
        """Start an engine for a model (config and dtype), unless the running one has the same model."""
        message = _parse(ModelMessage, body)
        with self._engine_turn():
            if self.engine is None or self.model != message.model_dump():
                try:
                    spec = ModelSpec(message.config, message.dtype)
                except ValueError as error:
                    raise RefusedError(400, str(error)) from error
                self._drop()
                try:
                    self.engine = self._run(Engine, message.config, message.dtype, self.settings)
                except UserError as error:
                    raise RefusedError(400, str(error)) from error
                self.model, self.spec = message.model_dump(), spec
            yield {"max_model_len": self.engine.max_model_len}

    def load(self, path: Path) -> Lines:
        """Validate a file of weights, then load it into the engine; an engine that fails to load it is dropped."""
        with self._engine_turn():
            engine, spec = self.running()
            try:
                spec.check_weights(path)
            except ValueError as error:
                raise RefusedError(400, str(error)) from error
            self.digest = None
            self.digest = self._run(engine.load, read_weights(path))
            yield {"digest": self.digest}

    def stream(self, body: bytes) -> Lines:
        """Sample with exactly the weights that the caller names; a last line marks the end."""
        asked = _parse(CompletionsMessage, body)
        with self._engine_turn():
            engine, spec = self.running()
            if self.digest != asked.digest:
                raise RefusedError(409, f"the engine has weights {self.digest}, but the request is for {asked.digest}")
            requests = [message.request() for message in asked.requests]
            try:
                spec.check_requests(requests, engine.max_model_len)
            except ValueError as error:
                raise RefusedError(400, str(error)) from error
            completions = engine.stream(requests)
            try:
                while (completion := self._run(next, completions, None)) is not None:
                    yield completion_to_json(completion)
            finally:
                self._run(completions.close)
            yield {"done": True}

    def server_close(self) -> None:
        """Stop listening, close all connections, and end the engine's thread."""
        super().server_close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _engine_turn(self) -> Iterator[None]:
        """Get exclusive use of the engine; drop the engine after an unexpected failure, since its state is unknown."""
        with self._turn:
            try:
                yield
            except RefusedError:
                raise
            except Exception as error:
                logger.exception("the engine failed")
                self._drop()
                raise RefusedError(500, described(error)) from error

    def _run(self, function: Callable[..., T], *args: Any) -> T:
        return self._thread.submit(function, *args).result()

    def _drop(self) -> None:
        engine = self.engine
        self.engine = self.model = self.spec = self.digest = None
        if engine is not None:
            self._run(engine.close)

    def running(self) -> tuple[Engine, ModelSpec]:
        """Return the engine and its model's spec.

        Raises:
            RefusedError: There is no engine.
        """
        engine, spec = self.engine, self.spec
        if engine is None or spec is None:
            raise RefusedError(409, "the server has no running engine")
        return engine, spec


class Handler(BoundedHandler):
    """Answers one request with JSON lines."""

    @property
    def rollouts(self) -> RolloutServer:
        """The server of this request."""
        return cast("RolloutServer", self.server)

    def answer(self) -> None:
        """Check access, then route the request by path and method."""
        self.rollouts.access.check(self.headers)
        self.rollouts.trust(self.connection)
        routes: dict[str, tuple[str, Callable[[], None]]] = {
            "/model": ("PUT", lambda: self._send(self.rollouts.start(self.read(self.body_size(MAX_MODEL_BYTES))))),
            "/weights": ("PUT", self._weights),
            "/completions": (
                "POST",
                lambda: self._send(self.rollouts.stream(self.read(self.body_size(MAX_COMPLETIONS_BYTES)))),
            ),
        }
        if self.path not in routes:
            raise RefusedError(404, f"there is no {self.path.partition('?')[0][:200]}")
        method, route = routes[self.path]
        if self.command != method:
            raise RefusedError(405, f"{self.path} requires the method {method}")
        route()

    def _weights(self) -> None:
        """Save the body to a file first, so that the engine never loads incomplete weights."""
        size = self.body_size(self.rollouts.running()[1].max_bytes)
        with NamedTemporaryFile(prefix="reft-pl-weights-") as file:
            while size:
                piece = self.read(min(size, 2**20))
                try:
                    file.write(piece)
                    file.flush()
                except OSError as error:
                    raise RefusedError(
                        507, f"the server cannot write the weights to {gettempdir()} ({described(error)})"
                    ) from error
                size -= len(piece)
            self._send(self.rollouts.load(Path(file.name)))

    def _send(self, lines: Lines) -> None:
        """Send lines as they come; a failure after the first one is sent as a line, because the status was already sent."""
        with closing(lines):
            line: dict[str, Any] | None = next(lines)  # before the status, because it may raise RefusedError
            self._head(200)
            while line is not None:
                self.send(json.dumps(line).encode() + b"\n")
                try:
                    line = next(lines, None)
                except RefusedError as refused:
                    line = {"error": str(refused)}

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error as one line; errors that http.server itself detects are always the caller's."""
        self._head(400 if code in {501, 505} else code)
        self.send(json.dumps({"error": message or explain or "the request is malformed"}).encode() + b"\n")

    def _head(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()


def _check_reach(host: str, access: Access, given: str | None) -> None:
    if given is None and not access.loopback:
        raise UserError(f"other machines can connect to a server on {host!r}: choose a token and set {TOKEN_VARIABLE} to it")


def _parse(message: type[M], body: bytes) -> M:
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise RefusedError(400, f"{place[:200]}: {first['msg']}") from error
