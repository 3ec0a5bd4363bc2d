# SPDX-License-Identifier: Apache-2.0
"""Tests for the renewal of certificates: when the files are read again, and what if they cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.test_tls import NOW, Identity, handshake, identity, names_of
from twisted_serve.web.renewal import INTERVAL, CertificateWatch, LiveCertificate
from twisted_serve.web.tls import TlsFiles


class RenewalTests(SynchronousTestCase):
    """Tests for `LiveCertificate` and `CertificateWatch`."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.files = TlsFiles(self.directory / "chain.pem", self.directory / "key.pem")
        self.install(identity("first"))
        self.clock = Clock()
        self.live = LiveCertificate(self.files, lambda: NOW)

    def install(self, shown: Identity) -> None:
        """Put a certificate and its key in place, as careful people do: by renaming."""
        for name, content in (("chain.pem", shown.certificate_pem), ("key.pem", shown.key_pem())):
            temporary = self.directory / "new"
            temporary.write_bytes(content)
            os.replace(temporary, self.directory / name)

    def shown(self) -> list[str]:
        """Return what a new connection is shown."""
        return names_of(handshake(self.live))

    def test_asked_to(self) -> None:
        """Asked to, it reads the files again; a connection that is there keeps what it has."""
        before = handshake(self.live)
        self.install(identity("second"))
        self.assertEqual(self.shown(), ["first"])
        self.assertTrue(self.live.renew())
        self.assertEqual(self.shown(), ["second"])
        self.assertEqual(names_of(before), ["first"])

    def test_watched(self) -> None:
        """A change is seen soon, and nothing happens without one."""
        watch = CertificateWatch(self.live, self.clock)
        watch.startService()
        self.install(identity("second"))
        self.clock.advance(INTERVAL)
        self.assertEqual(self.shown(), ["second"])
        serial = handshake(self.live).get_peer_certificate(as_cryptography=True).serial_number
        self.clock.advance(INTERVAL)
        self.assertEqual(handshake(self.live).get_peer_certificate(as_cryptography=True).serial_number, serial)
        watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.install(identity("third"))
        self.clock.advance(10 * INTERVAL)
        self.assertEqual(self.shown(), ["second"])

    def test_unusable(self) -> None:
        """What cannot be used, or goes away, changes nothing; when it is mended it is taken."""
        second = identity("second")
        (self.directory / "chain.pem").write_bytes(second.certificate_pem)
        self.live.look()
        self.assertEqual(self.shown(), ["first"])
        (self.directory / "key.pem").unlink()
        self.live.look()
        self.assertEqual(self.shown(), ["first"])
        self.assertFalse(self.live.renew())
        self.install(second)
        self.live.look()
        self.assertEqual(self.shown(), ["second"])

    def test_self_signed(self) -> None:
        """One that was made for this run is not made again."""
        live = LiveCertificate(TlsFiles(), lambda: NOW)
        serial = handshake(live).get_peer_certificate(as_cryptography=True).serial_number
        self.assertTrue(live.renew())
        live.look()
        self.assertEqual(handshake(live).get_peer_certificate(as_cryptography=True).serial_number, serial)
