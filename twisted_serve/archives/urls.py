# SPDX-License-Identifier: Apache-2.0
"""
This module implements the list of URLs which may be fetched, ``allowed_urls``.

A URL is looked at twice: whether it is sound, that is, means the same to the regular
expression of the operator and to whoever fetches it; and whether an expression matches
the whole of it (``spec/config_cli.md`` §8.3).
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import field, frozen
from attrs.validators import deep_iterable, instance_of

from twisted_serve.archives.confinement import climbs

# The longest URL that is looked at; the request line of our own listeners is shorter.
_MAX_LENGTH = 8192

_REMOTE = re.compile(r"(file|https?):", re.IGNORECASE)
_ANY_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

# No blanks, no control characters, nothing but ASCII; and no backslash, which some readers
# take for a slash: ``http://good.example\@evil.example/``.
_PRINTABLE = re.compile(r"[!-\[\]-~]+")


def is_remote(url: str) -> bool:
    """Say whether ``url`` is one that is fetched: ``file:``, ``http:`` or ``https:``."""
    return _REMOTE.match(url) is not None


def has_scheme(url: str) -> bool:
    """Say whether ``url`` is any URL at all, e.g. ``s3://…``, and so no name in the model store."""
    return is_remote(url) or _ANY_SCHEME.match(url) is not None


def basename(url: str) -> str | None:
    """Take the last component of the URL's path, if a file can safely be named so."""
    name = urlsplit(url).path.rpartition("/")[2]
    # A hidden file is no model, and could be something that a shell or a scan of the store treats specially.
    return name if name and not name.startswith(".") and len(name) <= 255 else None


def local_path(url: str) -> Path | None:
    """Find what a sound ``file:`` URL names on this machine; ``None`` for other URLs."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


@frozen
class AllowedUrls:
    """
    The regular expressions of ``allowed_urls``.

    :ivar patterns: As the operator wrote them; upper and lower case are the same.
    """

    patterns: tuple[str, ...] = field(validator=deep_iterable(instance_of(str), instance_of(tuple)))
    _compiled: tuple[re.Pattern[str], ...] = field(init=False, repr=False, eq=False)

    @_compiled.default
    def _compile_all(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_compile(pattern) for pattern in self.patterns)

    def permit(self, url: str) -> bool:
        """Say whether ``url`` may be fetched."""
        return _sound(url) and any(pattern.fullmatch(url) for pattern in self._compiled)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as e:
        raise ValueError(f"allowed_urls has {pattern!r}, which is no regular expression: {e}") from e


def _sound(url: str) -> bool:
    if len(url) > _MAX_LENGTH or _PRINTABLE.fullmatch(url) is None or climbs(url) or "%00" in url:
        return False
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return False
    if parts.scheme == "file":
        return parts.netloc.lower() in ("", "localhost") and parts.path.startswith("/")
    return parts.scheme in ("http", "https") and _sound_host(parts)


def _sound_host(parts: SplitResult) -> bool:
    # User information serves no one here, and ``http://good.example@evil.example/`` reads like the former.
    return bool(parts.hostname) and "@" not in parts.netloc and "%" not in parts.netloc
