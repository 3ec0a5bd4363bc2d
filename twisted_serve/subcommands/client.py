# SPDX-License-Identifier: Apache-2.0
"""
Send requests to one address of a server, and read the answers.

One connection is kept open between requests.  A client is for one thread; make another for each.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, Any

from attrs import field, frozen

from twisted_serve import __version__
from twisted_serve.config.addresses import Address
from twisted_serve.subcommands.addressing import TlsTrust, connection_to
from twisted_serve.subcommands.outcomes import Failed, NoServer, NotAuthorized

# Of an answer to show, in bytes.
_MAX_MESSAGE = 4000

# Of a whole answer, in bytes: no list or description is longer.
_MAX_ANSWER = 64 << 20

AGENT = f"twisted-serve/{__version__}"


@frozen
class Answer:
    """
    The answer to a request.

    :ivar headers: The headers, found by names in any case.
    """

    status: int
    headers: HTTPMessage
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """
        Return the body as JSON.

        :raise Failed: when it is not.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Failed("The answer is not JSON: is this the address of a twisted_serve server?") from None

    def members(self) -> dict[str, Any]:
        """
        Return the members of the body, a JSON object.

        :raise Failed: when the body is another.
        """
        members: dict[str, Any] = expect(self.json(), dict)
        return members

    @property
    def message(self) -> str:
        """The error in the server's words."""
        text = self.body[:_MAX_MESSAGE].decode(errors="replace").strip()
        with suppress(ValueError, RecursionError):
            said = json.loads(self.body)
            if isinstance(said, dict):
                words = str(said.get("message") or said.get("error") or text)
                return f"{words}: {said['reason']}" if said.get("reason") else words
        return text or f"status {self.status}"

    def refusal(self, *, with_key: bool = True) -> Failed | None:
        """
        Return the error that this answer is; ``None`` below status 400.

        :param with_key: Whether a key was sent.
        """
        if self.status < 400:
            return None
        asked = self.headers.get("WWW-Authenticate", "")
        if self.status == 403 and "insufficient_scope" in asked:
            return NotAuthorized(self.message)
        if asked or self.status == 401:
            if with_key:
                return NotAuthorized(
                    "The server does not accept the key: it is wrong, expired, revoked or of another kind."
                )
            return NotAuthorized("The server needs a key: set TS_KEY, or run this as the user that runs the server.")
        after = self.headers.get("Retry-After")
        return Failed(self.message + (f" Try again in {after} s." if after else ""))


def expect(value: Any, kind: type, member: str | None = None) -> Any:
    """
    Return a value of an answer, or a member of it, if it has the expected type.

    :raise Failed: when it has not, or there is no such member.
    """
    found = value.get(member) if member is not None and isinstance(value, dict) else value if member is None else None
    if not isinstance(found, kind):
        raise Failed("The answer is not as expected: is this the address of a twisted_serve server?")
    return found


class Client:
    """
    A client of one address.

    :param timeout: In seconds, of each wait for the server.
    :raise Failed: when a file for TLS cannot be used.
    """

    def __init__(self, address: Address, trust: TlsTrust, timeout: float) -> None:
        self.address = address
        self._connection = connection_to(address, trust, timeout)
        self._timeout = timeout

    def open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | IO[bytes] | None = None,
    ) -> HTTPResponse:
        """
        Send a request and return its answer when its head is there; the body is to be read, whole.

        :param target: Path and query, encoded.
        :raise NoServer: when there is no connection.
        :raise Failed: when the server does not answer in time, or not in HTTP.
        """
        connection = self._connection
        reused = connection.sock is not None
        try:
            return self._send(method, target, headers, body)
        except (ConnectionError, HTTPException) as e:
            connection.close()
            # The server may close an idle connection at the moment of the next request.
            if not (reused and method == "GET"):
                raise self._explained(e) from e
        except OSError as e:
            connection.close()
            raise self._explained(e) from e
        try:
            return self._send(method, target, headers, body)
        except (OSError, HTTPException) as e:
            connection.close()
            raise self._explained(e) from e

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | IO[bytes] | None = None,
    ) -> Answer:
        """
        Send a request and return its whole answer.

        :raise Failed: as `open`.
        """
        response = self.open(method, target, headers, body)
        try:
            body = response.read(_MAX_ANSWER)
            if response.read(1):
                self._connection.close()
                raise Failed(f"The answer of {self.address} is longer than {_MAX_ANSWER} bytes.")
            return Answer(response.status, response.headers, body)
        except (OSError, HTTPException) as e:
            self._connection.close()
            raise self._explained(e) from e

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None
    ) -> HTTPResponse:
        connection = self._connection
        if connection.sock is None:
            connection.connect()
        # A server may answer, a wrong key for example, before the body is sent; then it closes the connection.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body=body, headers={"User-Agent": AGENT, **headers})
        return connection.getresponse()

    def _explained(self, error: Exception) -> Failed:
        where = str(self.address)
        if isinstance(error, ssl.SSLCertVerificationError):
            return NoServer(
                f"The certificate of {where} cannot be verified ({error.verify_message}): name its authority with "
                "--cacert, or do not check it with --insecure."
            )
        if isinstance(error, TimeoutError):
            return Failed(f"{where} has not answered within {self._timeout:g} s; --timeout gives it longer.")
        if isinstance(error, HTTPException) and not isinstance(error, ConnectionError):
            return Failed(f"{where} does not answer in HTTP ({error!r}): is it an address of a server, and not https?")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return NoServer(f"{where} cannot be reached: {reason}. Is a server running there?")
