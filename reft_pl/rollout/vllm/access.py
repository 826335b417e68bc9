"""Access control of the rollout server: the token, and checks against DNS rebinding and cross-site requests."""

from __future__ import annotations

import hmac
import os
import re
import socket
from collections.abc import Iterable
from email.message import Message
from ipaddress import ip_address

from reft_pl.errors import UserError

TOKEN_VARIABLE = "REFT_PL_TOKEN"
"""Environment variable with the token, on server and client; a token in a config or URL would be stored or logged."""

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?")


class RefusedError(Exception):
    """The server refuses a request, with an HTTP status and a one-sentence reason."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def given_token() -> str | None:
    """Return the token from the environment, or None if the variable is empty or unset.

    Raises:
        UserError: The token cannot be sent in an HTTP header.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not re.fullmatch("[!-~]+", token):
        raise UserError(
            f"the token in {TOKEN_VARIABLE} must consist of printable ASCII characters without spaces: choose another one"
        )
    return token


class Access:
    """Decides from the headers whether the server accepts a request.

    Args:
        host: Name or address that the server is configured to listen on.
        address: Numeric address that it listens on.
        token: Token that callers must send.
        names: Additional host names under which callers reach the server.
    """

    def __init__(self, host: str, address: str, token: str, names: Iterable[str] = ()) -> None:
        ip = ip_address(address)
        self.loopback = ip.is_loopback
        self._any_address = ip.is_unspecified
        self._names = {host.lower(), address, *(name.lower() for name in names)}
        if ip.is_loopback or ip.is_unspecified:
            self._names |= {"localhost", "127.0.0.1", "::1"}
        if ip.is_unspecified:
            self._names.add(socket.gethostname().lower())
        self._authorization = f"Bearer {token}".encode()

    def check(self, headers: Message) -> None:
        """Refuse unknown host names, web pages, and callers without the token.

        ``Host`` reveals a DNS name that an attacker rebound to this machine; ``Origin`` reveals a request from a web page.

        Raises:
            RefusedError: The request is refused, with status 400, 401 or 403.
        """
        if headers.defects:
            raise RefusedError(400, "the headers are malformed")
        hosts = headers.get_all("Host", [])
        if len(hosts) != 1 or (match := _HOST.fullmatch(hosts[0].strip().lower())) is None:
            raise RefusedError(400, "a request must have one valid Host header")
        name = match[1] or match[2]
        if name not in self._names and not (self._any_address and _is_address(name)):
            raise RefusedError(403, "the Host header names another server: start this server with --allowed_host to add a name")
        if "Origin" in headers:
            raise RefusedError(403, "web pages may not use this server")
        shown = headers.get_all("Authorization", [])
        if len(shown) != 1 or not hmac.compare_digest(shown[0].encode("utf-8", "replace"), self._authorization):
            raise RefusedError(401, f"the token is missing or wrong: set {TOKEN_VARIABLE} to the server's token")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
