# SPDX-License-Identifier: Apache-2.0
"""
Answer plain HTTP requests on a TLS listener with an error.

A client that uses ``http://`` instead of ``https://`` gets an unencrypted error response, as in TorchServe
(``docs/torchserve/rest_api.md`` §1.4), instead of a reset connection.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory

from twisted_serve.web.http.rendering import json_text

# The first byte of a TLS record that begins a handshake (RFC 8446 §5.1).
_HANDSHAKE = 0x16

_REFUSAL = json_text({"status": "This TorchServe instance only accepts HTTPS requests"})
_ANSWER = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
)


class _Connection(BufferingTLSTransport):
    """A connection whose first byte tells TLS from plain HTTP."""

    _spoken = False
    _refused = False

    def dataReceived(self, data: bytes) -> None:
        """Refuse data that begins with a letter, as an HTTP method does."""
        if not self._spoken and data:
            self._spoken = True
            if data[0] != _HANDSHAKE and data[:1].isalpha():
                self._refused = True
                transport: Any = self.transport
                transport.write(_ANSWER)
                transport.loseConnection()
        if not self._refused:
            super().dataReceived(data)


class TlsFactory(TLSMemoryBIOFactory):
    """Makes TLS connections that answer plain HTTP with an error."""

    protocol = _Connection
    noisy = False
