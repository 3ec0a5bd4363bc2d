# SPDX-License-Identifier: Apache-2.0
"""
This module implements connections to a TLS listener, and the friendly refusal of those which do not speak TLS.

A client that says ``http://`` where it should say ``https://`` is told so in the
clear, as the predecessor does (``docs/torchserve/rest_api.md`` §1.4), instead of being left
with a reset connection.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory

from twisted_serve.web.http.rendering import json_text

# The first byte of a TLS record which begins a handshake (RFC 8446 §5.1).
_HANDSHAKE = 0x16

_REFUSAL = json_text({"status": "This TorchServe instance only accepts HTTPS requests"})
_ANSWER = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
)


class _Connection(BufferingTLSTransport):
    """One connection; its first byte says whether it speaks TLS."""

    _spoken = False
    _refused = False

    def dataReceived(self, data: bytes) -> None:
        """Refuse what begins with the letter of an HTTP method."""
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
    """Makes such connections."""

    protocol = _Connection
    noisy = False
