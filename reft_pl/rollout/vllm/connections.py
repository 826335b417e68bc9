"""A hardened HTTP server: limits on connections, headers, bodies and waiting times, and optional TLS."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader, RawIOBase
from ssl import SSLContext, SSLSocket
from threading import Lock
from typing import TYPE_CHECKING, Any

from reft_pl.rollout.vllm.access import RefusedError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

logger = logging.getLogger(__name__)

MAX_UNAUTHENTICATED = 64
"""Maximum number of open connections without a valid token; one more closes the oldest."""

MAX_CONNECTIONS = 128
"""Maximum number of open connections; one more is closed at once."""

MAX_HEADER_BYTES = 2**16
HEADER_SECONDS = 10.0
"""Timeout of the TLS handshake, and separately of all headers together."""

STALL_SECONDS = 30.0
"""A caller that sends or receives nothing for this long is disconnected."""

MIN_BYTES_PER_SECOND = 2**18
"""Minimum average rate of a body, so that a slow trickle cannot occupy a connection."""

LINGER_SECONDS = 1.0
"""How long to discard unread input after a response; closing at once could lose the response in transit."""


class RequestReader(RawIOBase):
    """Reads from a connection within limits on bytes and waiting time, first for the headers, then for the body.

    Only time spent waiting counts, not the server's own time between two reads.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._bytes, self._seconds = MAX_HEADER_BYTES, HEADER_SECONDS

    def allow_body(self, size: int) -> None:
        """Extend the limits for a body of ``size`` bytes."""
        self._bytes += size
        self._seconds = STALL_SECONDS + size / MIN_BYTES_PER_SECOND

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Wait for bytes, and return how many arrived; 0 at the end of the stream.

        Raises:
            RefusedError: A limit on bytes or waiting time is exceeded.
        """
        room = memoryview(buffer)[: self._bytes]
        if not room:
            raise RefusedError(431, f"the request headers exceed {MAX_HEADER_BYTES} bytes")
        before = time.monotonic()
        try:
            self._connection.settimeout(max(min(self._seconds, STALL_SECONDS), 0.001))
            count = self._connection.recv_into(room)
        except TimeoutError as error:
            raise RefusedError(408, "the request took too long to arrive") from error
        self._seconds -= time.monotonic() - before
        self._bytes -= count
        return count


class BoundedServer(ThreadingHTTPServer):
    """Serves each connection in its own thread, one request per connection, within the limits of this module.

    Args:
        address: Host and port to listen on; port 0 selects a free one.
        handler: Class that answers one request.
        tls: Certificate and key; None serves plain HTTP.
    """

    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BoundedHandler], tls: SSLContext | None = None) -> None:
        self._tls = tls
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self._unauthenticated: dict[socket.socket, None] = {}  # oldest first
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler, bind_and_activate=False)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its thread does the TLS handshake later."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Enforce the limits on connections, then start the thread of this one."""
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open.add(request)
                self._unauthenticated[request] = None
            if len(self._unauthenticated) > MAX_UNAUTHENTICATED:
                oldest = next(iter(self._unauthenticated))
                del self._unauthenticated[oldest]
                _cut(oldest)
        if full:
            request.close()
        else:
            super().process_request(request, client_address)

    def trust(self, connection: socket.socket) -> None:
        """Exempt a connection from eviction, because its caller has sent the token."""
        with self._lock:
            self._unauthenticated.pop(connection, None)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection so that the caller can read the response even if the server has not read the whole request."""
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            end = time.monotonic() + LINGER_SECONDS
            while (left := end - time.monotonic()) > 0:
                request.settimeout(left)
                if not request.recv(2**16):
                    break
        with self._lock:
            self._open.discard(request)
            self._unauthenticated.pop(request, None)
        request.close()

    def server_close(self) -> None:
        """Stop listening and close all connections."""
        super().server_close()
        with self._lock:
            for connection in self._open:
                _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the exception at debug level; usually the caller disconnected."""
        logger.debug("connection closed early", exc_info=True)


class BoundedHandler(BaseHTTPRequestHandler):
    """Reads one request within the limits; subclasses answer it with ``send`` or ``send_error``."""

    default_request_version = "HTTP/1.0"  # a response always has a status line
    request_version = "HTTP/1.0"
    requestline = command = path = ""

    def setup(self) -> None:
        """Wrap the connection in a limited reader, and do the TLS handshake."""
        super().setup()
        self.reader = RequestReader(self.connection)
        self.rfile = BufferedReader(self.reader)
        if isinstance(self.connection, SSLSocket):
            self.connection.settimeout(HEADER_SECONDS)
            self.connection.do_handshake()

    def handle(self) -> None:
        """Read the headers and answer the request."""
        try:
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():  # parse_request itself responds to malformed HTTP
                self.answer()
        except RefusedError as refused:
            self.send_error(refused.status, str(refused))

    def answer(self) -> None:
        """Answer the request; its headers have been parsed.

        Raises:
            RefusedError: The caller gets its status and message.
        """
        raise NotImplementedError

    def body_size(self, most: int) -> int:
        """Return the size of the body in bytes, and allow it to arrive.

        Raises:
            RefusedError: The size is missing, invalid, or above ``most``.
        """
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise RefusedError(411, "a request must have a Content-Length and no Transfer-Encoding")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise RefusedError(400, "the Content-Length is not a number")
        if len(lengths[0]) > 18 or int(lengths[0]) > most:
            raise RefusedError(413, f"the body for {self.path} exceeds {most} bytes: send less at once")
        self.reader.allow_body(int(lengths[0]))
        return int(lengths[0])

    def read(self, size: int) -> bytes:
        """Read the next ``size`` bytes of the body.

        Raises:
            RefusedError: The body is shorter.
        """
        data = self.rfile.read(size)
        if len(data) != size:
            raise RefusedError(400, "the body ends early")
        return data

    def send(self, line: bytes) -> None:
        """Send one line of the response; disconnect a caller that does not receive it."""
        self.connection.settimeout(STALL_SECONDS)
        self.wfile.write(line)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log a request at debug level without its query string, which might contain the token."""
        logger.debug("%s %s: %s", self.command, self.path.partition("?")[0], code)


def _cut(connection: socket.socket) -> None:
    """Shut down the socket of a connection that another thread serves, bypassing TLS, which that thread uses."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
