# SPDX-License-Identifier: Apache-2.0
"""
This module implements the TLS side of a listener: its certificate and key, from PEM files, a key store, or made now.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_PEM, X509, Error, PKey, load_certificate, load_privatekey
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger

_log = Logger()

# How long a certificate lasts that was made because none was given.
_SELF_SIGNED_LIFE = timedelta(days=365)

_PEM_END = b"-----END CERTIFICATE-----"


def context_factory(
    certificate_file: Path | None,
    private_key_file: Path | None,
    keystore: Path | None,
    keystore_pass: str,
    keystore_type: str,
    now: datetime,
) -> IOpenSSLContextFactory:
    """
    Make what a TLS listener needs: TLS 1.2 or later.

    A key store comes before PEM files; with neither, a certificate is made which
    nobody trusts, as the predecessor does (``spec/config_cli.md`` §4.2).

    :raise ValueError: naming the file which cannot be used.
    """
    if keystore is not None:
        if keystore_type.upper() != "PKCS12":
            raise ValueError(f"keystore_type is {keystore_type}; only PKCS12 can be read")
        key, chain = _from_keystore(keystore, keystore_pass)
        files = f"keystore {keystore}"
    elif certificate_file is not None and private_key_file is not None:
        key, chain = _from_pem(certificate_file, private_key_file)
        files = f"certificate_file {certificate_file} with private_key_file {private_key_file}"
    else:
        _log.warn("No certificate is configured: a self-signed one is used, which clients have no reason to trust")
        key, chain = _self_signed(now)
        files = "self-signed certificate"
    factory = CertificateOptions(
        privateKey=key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    try:
        # What does not go together shall be told now, not to the first client.
        factory.getContext()
    except SSL.Error as e:
        raise ValueError(f"{files} cannot be used: {_reason(e)}") from e
    return factory


def _reason(error: Exception) -> str:
    """Say what OpenSSL, whose errors are lists of (library, function, reason), or anybody else has to complain of."""
    match error.args:
        case ([*_, (_, _, str(reason))],) if reason:
            return reason
    return str(error) or type(error).__name__


def _from_pem(certificate_file: Path, private_key_file: Path) -> tuple[PKey, list[X509]]:
    try:
        pieces = certificate_file.read_bytes().split(_PEM_END)[:-1]
        chain = [load_certificate(FILETYPE_PEM, piece + _PEM_END) for piece in pieces]
        if not chain:
            raise ValueError("it holds no certificate")
    except (OSError, ValueError, Error) as e:
        raise ValueError(f"certificate_file {certificate_file} cannot be used: {_reason(e)}") from e
    try:
        key = load_privatekey(FILETYPE_PEM, private_key_file.read_bytes(), passphrase=b"")
    except (OSError, ValueError, TypeError, Error) as e:
        raise ValueError(f"private_key_file {private_key_file} cannot be used: {_reason(e)}") from e
    return key, chain


def _from_keystore(keystore: Path, password: str) -> tuple[PKey, list[X509]]:
    try:
        key, certificate, more = load_key_and_certificates(keystore.read_bytes(), password.encode())
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
