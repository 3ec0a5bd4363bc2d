# SPDX-License-Identifier: Apache-2.0
"""Tests for certificates and keys: what a client sees of them, and what is said of files that cannot be used."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.listening.tls import TlsFiles, context_factory

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@frozen
class Identity:
    """A certificate, its key, and who issued it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def identity(name: str, issuer: Identity | None = None) -> Identity:
    """Make a certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key if issuer is None else issuer.key, hashes.SHA256())
    )
    return Identity(certificate, key)


def handshake(factory: IOpenSSLContextFactory, newest: int | None = None, shown: Identity | None = None) -> Any:
    """Have a client, in memory, connect to a server with this side; return the client's connection."""
    server = SSL.Connection(factory.getContext(), None)
    server.set_accept_state()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if newest is not None:
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_max_proto_version(newest)
    if shown is not None:
        context.use_certificate(X509.from_cryptography(shown.certificate))
        context.use_privatekey(PKey.from_cryptography_key(shown.key))
    client = SSL.Connection(context, None)
    client.set_connect_state()
    for _ in range(10):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(1 << 16))
    return client


def names_of(client: Any) -> list[str]:
    """Return the names in the chain that a client was shown."""
    chain = client.get_peer_cert_chain(as_cryptography=True)
    return [each.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value for each in chain]


class CipherTests(SynchronousTestCase):
    """Tests for what is spoken under TLS 1.2."""

    def agreed(self, key: Any, cipher: str) -> str | None:
        """Return the cipher that a client with only this one gets, ``None`` if it is refused."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        (directory / "chain").write_bytes(certificate.public_bytes(Encoding.PEM))
        (directory / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (directory / "key").chmod(0o600)
        server = SSL.Connection(
            context_factory(TlsFiles(directory / "chain", directory / "key"), NOW).getContext(), None
        )
        server.set_accept_state()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(f"{cipher}:@SECLEVEL=0".encode())
        client = SSL.Connection(context, None)
        client.set_connect_state()
        try:
            for _ in range(10):
                for end, other in ((client, server), (server, client)):
                    with contextlib.suppress(SSL.WantReadError):
                        end.do_handshake()
                    with contextlib.suppress(SSL.WantReadError):
                        other.bio_write(end.bio_read(1 << 16))
        except SSL.Error:
            return None
        return client.get_cipher_name()

    def test_forward_secrecy_and_aead(self) -> None:
        """Ciphers of Mozilla's "intermediate" list are spoken; RSA key exchange, CBC and SHA-1 are not."""
        keys = {"RSA": rsa.generate_private_key(65537, 2048), "ECDSA": ec.generate_private_key(ec.SECP256R1())}
        for kind, key in keys.items():
            for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"):
                self.assertEqual(self.agreed(key, f"ECDHE-{kind}-{cipher}"), f"ECDHE-{kind}-{cipher}")
            for cipher in (f"ECDHE-{kind}-AES128-SHA", f"ECDHE-{kind}-AES256-SHA", f"ECDHE-{kind}-AES128-SHA256"):
                self.assertIsNone(self.agreed(key, cipher), cipher)
        for cipher in ("AES128-SHA", "AES256-SHA", "AES128-SHA256", "AES128-GCM-SHA256", "AES256-GCM-SHA384"):
            self.assertIsNone(self.agreed(keys["RSA"], cipher), cipher)


class ExposedTests(SynchronousTestCase):
    """Tests for private keys that every user of the machine may read."""

    def test_warned(self) -> None:
        """Such a key is warned about, by its name, at each reading; one that its owner or group may read is not."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        shown, chain, key = identity("a"), directory / "chain", directory / "key"
        chain.write_bytes(shown.certificate_pem)
        key.write_bytes(shown.key_pem())
        for mode, warned in ((0o644, 1), (0o602, 1), (0o640, 0), (0o600, 0)):
            key.chmod(mode)
            with capturedLogs() as events:
                context_factory(TlsFiles(chain, key), NOW)
            lines = [str(formatEvent(event)) for event in events]
            self.assertEqual(
                len([line for line in lines if f"private_key_file {key} is open to every" in line]), warned
            )


class TlsTests(SynchronousTestCase):
    """Tests for `context_factory`."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.root = identity("root")
        self.middle = identity("middle", self.root)
        self.leaf = identity("leaf", self.middle)

    def file(self, name: str, content: bytes) -> Path:
        """Write a file."""
        path = self.directory / name
        path.write_bytes(content)
        return path

    def pem(self, certificates: bytes, key: bytes) -> IOpenSSLContextFactory:
        """Make a server's side of PEM files."""
        return context_factory(TlsFiles(self.file("chain.pem", certificates), self.file("key.pem", key)), NOW)

    def keystore(self, content: bytes, password: str = "changeit", kind: str = "PKCS12") -> IOpenSSLContextFactory:
        """Make a server's side of a key store."""
        path = self.file("keystore.p12", content)
        return context_factory(TlsFiles(keystore=path, keystore_pass=password, keystore_type=kind), NOW)

    def stored(self, password: bytes = b"changeit") -> bytes:
        """Write a key store with the whole chain."""
        chain = [self.middle.certificate, self.root.certificate]
        return serialize_key_and_certificates(
            b"alias", self.leaf.key, self.leaf.certificate, chain, BestAvailableEncryption(password)
        )

    def test_chain_of_pem_files(self) -> None:
        """Clients are shown the chain of the file, in its order."""
        chain = self.leaf.certificate_pem + b"a remark\n" + self.middle.certificate_pem
        self.assertEqual(names_of(handshake(self.pem(chain, self.leaf.key_pem()))), ["leaf", "middle"])

    def test_single_certificate(self) -> None:
        """A chain may be one certificate."""
        self.assertEqual(names_of(handshake(self.pem(self.root.certificate_pem, self.root.key_pem()))), ["root"])

    def test_keystore(self) -> None:
        """Clients are shown the chain of the key store."""
        self.assertEqual(names_of(handshake(self.keystore(self.stored())))[0], "leaf")
        self.assertEqual(set(names_of(handshake(self.keystore(self.stored())))), {"leaf", "middle", "root"})

    def test_keystore_comes_first(self) -> None:
        """With both, the key store is used."""
        files = TlsFiles(
            self.file("chain.pem", self.root.certificate_pem),
            self.file("key.pem", self.root.key_pem()),
            self.file("keystore.p12", self.stored()),
            keystore_type="pkcs12",
        )
        self.assertEqual([path.name for path in files], ["keystore.p12"])
        factory = context_factory(files, NOW)
        self.assertEqual(names_of(handshake(factory))[0], "leaf")

    def test_self_signed(self) -> None:
        """With neither, a certificate for localhost is made, fresh each time, which is valid now and for a year."""
        serials = set()
        for _ in range(2):
            client = handshake(context_factory(TlsFiles(), NOW))
            certificate = client.get_peer_certificate(as_cryptography=True)
            serials.add(certificate.serial_number)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])
            self.assertLess(certificate.not_valid_before_utc, NOW)
            self.assertEqual(certificate.not_valid_after_utc, NOW + timedelta(days=365))
        self.assertEqual(len(serials), 2)

    def test_old_versions(self) -> None:
        """TLS 1.2 is the oldest version that is spoken."""
        factory = self.pem(self.leaf.certificate_pem, self.leaf.key_pem())
        self.assertEqual(handshake(factory, SSL.TLS1_2_VERSION).get_protocol_version_name(), "TLSv1.2")
        self.assertEqual(handshake(factory).get_protocol_version_name(), "TLSv1.3")
        for old in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            self.assertRaises(SSL.Error, handshake, factory, old)

    def test_unusable_certificates(self) -> None:
        """A certificate file that is missing, empty, damaged or something else is named."""
        whole = self.leaf.certificate_pem
        path = self.directory / "chain.pem"
        for content in (b"", b"nonsense", whole[:100], whole.replace(b"M", b"!"), self.leaf.key_pem(), b"\0" * 1000):
            error = self.assertRaises(ValueError, self.pem, content, self.leaf.key_pem())
            self.assertIn(f"certificate_file {path} cannot be used", str(error))
        key = self.file("key.pem", self.leaf.key_pem())
        for path in (self.directory / "absent.pem", self.directory):
            error = self.assertRaises(ValueError, context_factory, TlsFiles(path, key), NOW)
            self.assertIn(f"certificate_file {path} cannot be used", str(error))

    def test_unusable_keys(self) -> None:
        """A key file that is missing, damaged, locked by a password, or something else is named."""
        path = self.directory / "key.pem"
        whole = self.leaf.key_pem()
        for content in (b"", b"nonsense", whole[:100], self.leaf.certificate_pem, self.leaf.key_pem(b"password")):
            error = self.assertRaises(ValueError, self.pem, self.leaf.certificate_pem, content)
            self.assertIn(f"private_key_file {path} cannot be used", str(error))
        certificate = self.file("chain.pem", self.leaf.certificate_pem)
        path = self.directory / "absent.pem"
        error = self.assertRaises(ValueError, context_factory, TlsFiles(certificate, path), NOW)
        self.assertIn(f"private_key_file {path} cannot be used", str(error))

    def test_key_of_another_certificate(self) -> None:
        """A key which is not the certificate's is an error at start, not at a client's handshake."""
        error = self.assertRaises(ValueError, self.pem, self.leaf.certificate_pem, self.root.key_pem())
        self.assertIn(f"private_key_file {self.directory / 'key.pem'} cannot be used", str(error))

    def test_unusable_keystores(self) -> None:
        """A key store that is missing, damaged, has another password, or no key, is named."""
        path = self.directory / "keystore.p12"
        whole = self.stored()
        keyless = serialize_key_and_certificates(
            None, None, self.leaf.certificate, None, BestAvailableEncryption(b"changeit")
        )
        for content in (b"", b"nonsense", whole[:-10], self.stored(b"other"), keyless, self.leaf.certificate_pem):
            error = self.assertRaises(ValueError, self.keystore, content)
            self.assertIn(f"keystore {path} cannot be used", str(error))
            self.assertNotIn("changeit", str(error))
        path = self.directory / "absent.p12"
        error = self.assertRaises(ValueError, context_factory, TlsFiles(keystore=path), NOW)
        self.assertIn(f"keystore {path} cannot be used", str(error))

    def test_keystore_that_is_no_file(self) -> None:
        """A key store that is a pipe is refused, and not waited for; one that every user can read is warned of."""
        pipe = self.directory / "pipe.p12"
        os.mkfifo(pipe)
        error = self.assertRaises(ValueError, context_factory, TlsFiles(keystore=pipe), NOW)
        self.assertRegex(str(error), f"keystore {pipe} cannot be used: .*Not a regular file")
        self.keystore(self.stored())
        path = self.directory / "keystore.p12"
        path.chmod(0o644)
        with capturedLogs() as events:
            context_factory(TlsFiles(keystore=path), NOW)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [f"keystore {path} is open to every user of this machine: chmod 600 {path}"],
        )

    def test_keystore_type(self) -> None:
        """What a key store is counts, not what it is said to be: PKCS12 is read, and Java's formats are converted."""
        path = self.directory / "keystore.p12"
        for kind in ("JKS", "jceks", "pkcs12"):
            factory = self.keystore(self.stored(), kind=kind)
            self.assertEqual(names_of(handshake(factory, SSL.TLS1_2_VERSION))[0], "leaf")
            for magic, format_ in ((b"\xfe\xed\xfe\xed", "JKS"), (b"\xce\xce\xce\xce", "JCEKS")):
                error = self.assertRaises(ValueError, self.keystore, magic + b"\0\0\0\2" + bytes(80), kind=kind)
                line = f"keytool -importkeystore -srckeystore {path} -srcstoretype {format_} -destkeystore {path}.p12"
                self.assertIn(f"{line} -deststoretype PKCS12", str(error))
                self.assertNotIn("changeit", str(error))
        error = self.assertRaises(ValueError, self.keystore, b"nonsense", kind="JKS")
        self.assertIn(f"keystore {path} cannot be used", str(error))

    def test_client_certificates(self) -> None:
        """Required: a client without a good certificate is refused; optional: one with a bad one is."""
        chain, key = self.file("chain.pem", self.leaf.certificate_pem), self.file("key.pem", self.leaf.key_pem())
        trusted = self.file("clients.pem", self.root.certificate_pem)
        friend, stranger = identity("friend", self.root), identity("stranger")
        for word, refuses_none in (("required", True), ("optional", False)):
            factory = context_factory(TlsFiles(chain, key, client_ca_file=trusted, client_certificate=word), NOW)
            store = factory.getContext().get_cert_store()
            assert store is not None
            store.set_time(NOW)
            self.assertEqual(names_of(handshake(factory, SSL.TLS1_2_VERSION, friend)), ["leaf"])
            self.assertRaises(SSL.Error, handshake, factory, SSL.TLS1_2_VERSION, stranger)
            if refuses_none:
                self.assertRaises(SSL.Error, handshake, factory, SSL.TLS1_2_VERSION)
            else:
                self.assertEqual(names_of(handshake(factory, SSL.TLS1_2_VERSION)), ["leaf"])

    def test_unusable_authorities(self) -> None:
        """A file of authorities that is missing or has none is named."""
        chain, key = self.file("chain.pem", self.leaf.certificate_pem), self.file("key.pem", self.leaf.key_pem())
        for path in (self.directory / "absent.pem", self.file("empty.pem", b"")):
            files = TlsFiles(chain, key, client_ca_file=path, client_certificate="required")
            error = self.assertRaises(ValueError, context_factory, files, NOW)
            self.assertIn(f"client_ca_file {path} cannot be used", str(error))
