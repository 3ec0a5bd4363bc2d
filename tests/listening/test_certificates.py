# SPDX-License-Identifier: Apache-2.0
"""Tests for the renewal of certificates: when the files are read again, and what if they cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.listening.test_tls import NOW, Identity, handshake, identity, names_of
from twisted_serve.listening.certificates import INTERVAL, LIMIT, CertificateWatch, LiveCertificate
from twisted_serve.listening.tls import LARGEST_FILE, TlsFiles


class RenewalTests(SynchronousTestCase):
    """Tests for `LiveCertificate` and `CertificateWatch`."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.files = TlsFiles(self.directory / "chain.pem", self.directory / "key.pem")
        self.install(identity("first"))
        self.clock = Clock()
        self.waiting: list[Callable[[], object]] | None = None
        self.live = LiveCertificate(self.files, lambda: NOW, self.clock, self.in_thread)

    def in_thread(self, work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
        """Do the work at once, or when the test calls what waits."""
        if self.waiting is None:
            return maybeDeferred(work, *args)
        done: Deferred[Any] = Deferred()
        self.waiting.append(lambda: maybeDeferred(work, *args).chainDeferred(done))
        return done

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
        self.assertTrue(self.successResultOf(self.live.renew()))
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
        self.assertFalse(self.successResultOf(self.live.renew()))
        self.install(second)
        self.live.look()
        self.assertEqual(self.shown(), ["second"])

    def test_pipe(self) -> None:
        """A pipe, a device or a huge file in the place of one is refused; nothing waits for it."""
        for name, option in (("chain.pem", "certificate_file"), ("key.pem", "private_key_file")):
            path = self.directory / name
            for make in (
                os.mkfifo,
                lambda path: path.symlink_to("/dev/zero"),
                lambda path: path.mkdir(),
                lambda path: path.write_bytes(b"-" * (LARGEST_FILE + 1)),
            ):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
                make(path)
                with capturedLogs() as events:
                    self.assertFalse(self.successResultOf(self.live.renew()))
                self.assertIn(f"{option} {path} cannot be used", str(formatEvent(events[-1])))
                self.assertEqual(self.shown(), ["first"])
            path.unlink()
            self.install(identity("first"))

    def test_file_system_hangs(self) -> None:
        """A reading that does not end is said in the log, once; no second one is begun beside it; all goes on after."""
        self.waiting = []
        watch = CertificateWatch(self.live, self.clock)
        watch.startService()
        self.install(identity("second"))
        asked = self.live.renew()
        with capturedLogs() as events:
            self.clock.advance(LIMIT)
            self.clock.pump([INTERVAL] * 10)
        self.assertEqual(len([e for e in events if "not read after 10 s" in str(formatEvent(e))]), 1)
        self.assertEqual(len(self.waiting), 1)
        self.assertNoResult(asked)
        self.assertEqual(self.shown(), ["first"])
        self.waiting.pop()()
        self.assertTrue(self.successResultOf(asked))
        self.assertEqual(self.shown(), ["second"])
        watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asked_meanwhile(self) -> None:
        """What changes while the files are being read is read afterwards."""
        self.waiting = []
        first = self.live.renew()
        second = self.live.renew()
        self.waiting.pop()()
        self.install(identity("second"))
        self.assertEqual(len(self.waiting), 1)
        self.waiting.pop()()
        self.assertTrue(self.successResultOf(first))
        self.assertTrue(self.successResultOf(second))
        self.assertEqual(self.shown(), ["second"])

    def test_self_signed(self) -> None:
        """One that was made for this run is not made again."""
        live = LiveCertificate(TlsFiles(), lambda: NOW, self.clock, self.in_thread)
        serial = handshake(live).get_peer_certificate(as_cryptography=True).serial_number
        self.assertTrue(self.successResultOf(live.renew()))
        live.look()
        self.assertEqual(handshake(live).get_peer_certificate(as_cryptography=True).serial_number, serial)
