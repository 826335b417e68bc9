"""An HTTP server that no caller can hold up: bounded connections, headers, bodies and waiting times, and optional TLS."""

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

MAX_STRANGERS = 64
"""Open connections that have not shown the token; the next one closes the oldest."""

MAX_CONNECTIONS = 128
"""Open connections of all callers; the next one is closed at once."""

MAX_HEADER_BYTES = 2**16
HEADER_SECONDS = 10.0
"""For the TLS handshake, and again for all headers."""

STALL_SECONDS = 30.0
"""A caller that sends or takes nothing for so long is cut off."""

MIN_BYTES_PER_SECOND = 2**18
"""A body must arrive faster than this on average, so that a trickle cannot hold a connection."""

LINGER_SECONDS = 1.0
"""How long unread input is discarded after an answer: closing at once would destroy the answer on its way."""


class RequestReader(RawIOBase):
    """The incoming bytes of a connection, limited in number and in waiting time; headers first.

    Only waiting counts, not the time that the server takes between two reads.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._bytes, self._seconds = MAX_HEADER_BYTES, HEADER_SECONDS

    def allow_body(self, size: int) -> None:
        """Allow ``size`` bytes more."""
        self._bytes += size
        self._seconds = STALL_SECONDS + size / MIN_BYTES_PER_SECOND

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Wait for bytes; 0 at the end.

        Raises:
            RefusedError: there were too many bytes, or too much waiting.
        """
        room = memoryview(buffer)[: self._bytes]
        if not room:
            raise RefusedError(431, f"the request has more than {MAX_HEADER_BYTES} bytes of headers")
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
    """Serves each connection in a thread, one request each, within the limits above.

    Args:
        address: Host and port to listen on; port 0 takes a free one.
        handler: Class that answers one request.
        tls: Certificate and key; None serves plain HTTP.
    """

    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BoundedHandler], tls: SSLContext | None = None) -> None:
        self._tls = tls
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self._strangers: dict[socket.socket, None] = {}  # oldest first
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler, bind_and_activate=False)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its own thread does the TLS handshake."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make room for a connection, then start its thread."""
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open.add(request)
                self._strangers[request] = None
            if len(self._strangers) > MAX_STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                _cut(oldest)
        if full:
            request.close()
        else:
            super().process_request(request, client_address)

    def trust(self, connection: socket.socket) -> None:
        """Keep a connection whatever else arrives: its caller has shown the token."""
        with self._lock:
            self._strangers.pop(connection, None)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection so that the caller can read the answer even if it has not been heard out."""
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            end = time.monotonic() + LINGER_SECONDS
            while (left := end - time.monotonic()) > 0:
                request.settimeout(left)
                if not request.recv(2**16):
                    break
        with self._lock:
            self._open.discard(request)
            self._strangers.pop(request, None)
        request.close()

    def server_close(self) -> None:
        """Stop listening and end all connections."""
        super().server_close()
        with self._lock:
            for connection in self._open:
                _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what ended a connection, for debugging: most often the caller went away."""
        logger.debug("a connection ended early", exc_info=True)


class BoundedHandler(BaseHTTPRequestHandler):
    """Reads one request within the limits; subclasses answer it.

    ``send_error`` and ``send`` are the two ways to answer.
    """

    default_request_version = "HTTP/1.0"  # an answer always has a status line
    request_version = "HTTP/1.0"
    requestline = command = path = ""

    def setup(self) -> None:
        """Put the limits around the connection."""
        super().setup()
        self.reader = RequestReader(self.connection)
        self.rfile = BufferedReader(self.reader)
        if isinstance(self.connection, SSLSocket):
            self.connection.settimeout(HEADER_SECONDS)
            self.connection.do_handshake()

    def handle(self) -> None:
        """Read the headers and answer."""
        try:
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():  # which answers what is not HTTP
                self.answer()
        except RefusedError as refused:
            self.send_error(refused.status, str(refused))

    def answer(self) -> None:
        """Answer the request whose headers have been read.

        Raises:
            RefusedError: the caller gets this status and sentence.
        """
        raise NotImplementedError

    def body_size(self, most: int) -> int:
        """Bytes of the body, which may arrive from now on.

        Raises:
            RefusedError: they are not given, or more than ``most``.
        """
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise RefusedError(411, "a request must give its Content-Length, and no Transfer-Encoding")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise RefusedError(400, "the Content-Length is not a number")
        if len(lengths[0]) > 18 or int(lengths[0]) > most:
            raise RefusedError(413, f"the body may have {most} bytes at {self.path}: send less at once")
        self.reader.allow_body(int(lengths[0]))
        return int(lengths[0])

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes of the body.

        Raises:
            RefusedError: there are fewer.
        """
        data = self.rfile.read(size)
        if len(data) != size:
            raise RefusedError(400, "the body ends early")
        return data

    def send(self, line: bytes) -> None:
        """Send one line of the answer; a caller that takes none of it is cut off."""
        self.connection.settimeout(STALL_SECONDS)
        self.wfile.write(line)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log a request for debugging, without what follows the path: somebody may have put the token there."""
        logger.debug("%s %s: %s", self.command, self.path.partition("?")[0], code)


def _cut(connection: socket.socket) -> None:
    """End a connection under the thread that serves it; past TLS, which belongs to that thread."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
