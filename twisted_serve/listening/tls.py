# SPDX-License-Identifier: Apache-2.0
"""
Make TLS context factories with a certificate and key from PEM files or a key store, or a self-signed certificate.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_PEM, X509, Error, PKey, load_certificate, load_privatekey
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import (
    AcceptableCiphers,
    Certificate,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)
from twisted.logger import Logger

from twisted_serve.system.small_files import read_small

_log = Logger("twisted_serve.listening")

# The validity of a self-signed certificate.
_SELF_SIGNED_LIFE = timedelta(days=365)

# The first bytes of JKS and JCEKS files.
_JAVA_MAGIC = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")

_PEM_END = b"-----END CERTIFICATE-----"

# The most bytes of a file; the certificates of all public authorities take half as many.
LARGEST_FILE = 1 << 20

# Forward secrecy and authenticated encryption only: the ciphers of TLS 1.2 in Mozilla's "intermediate" configuration.
# The ciphers of TLS 1.3, which all have both properties, are configured separately.
_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)

#: Whether a client certificate is not requested, requested, or required.
CLIENT_CERTIFICATES = ("none", "optional", "required")


@frozen
class TlsFiles:
    """
    The sources of a listener's certificate and key, and the authorities that it trusts.

    :ivar certificate_file: The certificate chain, PEM; ``private_key_file`` is its key.
    :ivar keystore: A PKCS#12 file; it takes precedence over the PEM files.
    :ivar client_ca_file: The authorities trusted to sign client certificates, PEM.
    :ivar client_certificate: One of `CLIENT_CERTIFICATES`.
    """

    certificate_file: Path | None = None
    private_key_file: Path | None = None
    keystore: Path | None = None
    keystore_pass: str = field(default="changeit", repr=False)
    keystore_type: str = "PKCS12"
    client_ca_file: Path | None = None
    client_certificate: str = "none"

    def __iter__(self) -> Iterator[Path]:
        """Iterate over the files in use."""
        own = (self.certificate_file, self.private_key_file) if self.keystore is None else (self.keystore,)
        yield from (path for path in (*own, self.client_ca_file) if path is not None)


def context_factory(files: TlsFiles, now: datetime) -> IOpenSSLContextFactory:
    """
    Make the context factory of a TLS listener: TLS 1.2 or later, with forward secrecy and authenticated encryption.

    With neither a key store nor PEM files, a self-signed certificate is made, as in TorchServe
    (``docs/torchserve/config_cli.md`` §4.2).

    :raise ValueError: naming the file that cannot be used.
    """
    if files.keystore is not None:
        key, chain = _from_keystore(files.keystore, files.keystore_pass)
        if files.keystore_type.upper() != "PKCS12":
            _log.warn(
                "keystore_type is {type}, but {keystore} is a PKCS12 file, and is read as one",
                type=files.keystore_type,
                keystore=files.keystore,
            )
        named = f"keystore {files.keystore}"
    elif files.certificate_file is not None and files.private_key_file is not None:
        key, chain = _from_pem(files.certificate_file, files.private_key_file)
        named = f"certificate_file {files.certificate_file} with private_key_file {files.private_key_file}"
    else:
        _log.warn("No certificate is configured: a self-signed one is used, which clients have no reason to trust")
        key, chain = _self_signed(now)
        named = "self-signed certificate"
    authorities = None if files.client_ca_file is None else _client_authorities(files.client_ca_file)
    factory = CertificateOptions(
        privateKey=key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        raiseMinimumTo=TLSVersion.TLSv1_2,
        trustRoot=authorities,
        acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString(_CIPHERS),
    )
    try:
        # Report a key that does not match its certificate now, not when the first client connects.
        context = factory.getContext()
    except SSL.Error as e:
        raise ValueError(f"{named} cannot be used: {_reason(e)}") from e
    if files.client_certificate == "optional":
        # No certificate is accepted, an invalid one is not.
        context.set_verify(SSL.VERIFY_PEER, lambda _connection, _certificate, _error, _depth, well: bool(well))
    return factory


def _client_authorities(path: Path) -> Any:
    try:
        return trustRootFromCertificates([Certificate(each) for each in _certificates(path)])
    except (OSError, ValueError, Error) as e:
        raise ValueError(f"client_ca_file {path} cannot be used: {_reason(e)}") from e


def _certificates(path: Path) -> list[X509]:
    pieces = read_small(path, LARGEST_FILE).content.split(_PEM_END)[:-1]
    found = [load_certificate(FILETYPE_PEM, piece + _PEM_END) for piece in pieces]
    if not found:
        raise ValueError("it holds no certificate")
    return found


def _reason(error: Exception) -> str:
    """Return the reason of an error; OpenSSL's errors hold lists of (library, function, reason)."""
    match error.args:
        case ([*_, (_, _, str(reason))],) if reason:
            return reason
    return str(error) or type(error).__name__


def _secret(option: str, path: Path) -> bytes:
    """Read a file with a private key, and warn if other users may read or change it."""
    file = read_small(path, LARGEST_FILE)
    if file.exposed:
        _log.warn(
            "{option} {path} is open to every user of this machine: chmod 600 {path}", option=option, path=str(path)
        )
    return file.content


def _from_pem(certificate_file: Path, private_key_file: Path) -> tuple[PKey, list[X509]]:
    try:
        chain = _certificates(certificate_file)
    except (OSError, ValueError, Error) as e:
        raise ValueError(f"certificate_file {certificate_file} cannot be used: {_reason(e)}") from e
    try:
        key = load_privatekey(FILETYPE_PEM, _secret("private_key_file", private_key_file), passphrase=b"")
    except (OSError, ValueError, TypeError, Error) as e:
        raise ValueError(f"private_key_file {private_key_file} cannot be used: {_reason(e)}") from e
    return key, chain


def _from_keystore(keystore: Path, password: str) -> tuple[PKey, list[X509]]:
    try:
        content = _secret("keystore", keystore)
        # The content decides the format, not keystore_type: Java, too, reads either format for either type.
        if content.startswith(_JAVA_MAGIC):
            kind = "JKS" if content.startswith(_JAVA_MAGIC[0]) else "JCEKS"
            source, target = (shlex.quote(name) for name in (str(keystore), f"{keystore}.p12"))
            raise ValueError(
                f"it is a {kind} file, which only Java reads; this makes a PKCS12 file of it: keytool -importkeystore "
                f"-srckeystore {source} -srcstoretype {kind} -destkeystore {target} -deststoretype PKCS12"
            )
        key, certificate, more = load_key_and_certificates(content, password.encode())
        if key is None or certificate is None:
            raise ValueError("it holds no key with a certificate")
    except (OSError, ValueError) as e:
        raise ValueError(f"keystore {keystore} cannot be used: {_reason(e)}") from e
    chain = [X509.from_cryptography(each) for each in (certificate, *more)]
    return PKey.from_cryptography_key(key), chain  # type: ignore[arg-type]


def _self_signed(now: datetime) -> tuple[PKey, list[X509]]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _SELF_SIGNED_LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return PKey.from_cryptography_key(key), [X509.from_cryptography(certificate)]
