# SPDX-License-Identifier: Apache-2.0
"""
This module implements the list of URLs which may be fetched, ``allowed_urls``.

A URL is looked at twice: whether it is sound, that is, means the same to the regular
expression of the operator and to whoever fetches it; and whether an expression matches
the whole of it (``docs/torchserve/config_cli.md`` §8.3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

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

# What stands in the path of a URL as it is (RFC 3986, pchar and slash).
_PATH_CHARACTERS = "/!$&'()*+,;=:@-._~"

# What an expression cannot have for itself.
_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|(),]")

# An expression, or an alternative of one, for paths.
_OF_PATHS = re.compile(r"(?:^|\|)[(?:^]*/")

# The path at the beginning of an expression, as far as nothing in it is variable; a dot most often means a dot.
_LITERAL_PATH = re.compile(
    r"[(?:^]*(?:file:(?://(?:localhost)?)?)?(/(?:[\w/%~=@!,;'&#:-]|\\\W|\[[^\]^\\]\]|\.(?![*+?{]))*)", re.IGNORECASE
)
_ESCAPED = re.compile(r"(?:\\|\[)(\W)\]?")


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


def local_text(url: str) -> str | None:
    """Return the path that a sound ``file:`` URL has, percent escapes resolved; ``None`` for other URLs."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else None


def local_path(url: str) -> Path | None:
    """Find what a sound ``file:`` URL names on this machine; ``None`` for other URLs."""
    text = local_text(url)
    return None if text is None else Path(text)


def file_url(path: str) -> str:
    """Return the ``file:`` URL of an absolute path."""
    return f"file://{quote(path, safe=_PATH_CHARACTERS)}"


def unsound(url: str) -> str | None:
    """
    Return why a URL is never fetched: it leads nowhere, or reads otherwise to an expression than to what fetches it.

    :return: The problem; ``None`` for a sound URL.
    """
    if len(url) > _MAX_LENGTH:
        return f"the URL has more than {_MAX_LENGTH} characters"
    if _PRINTABLE.fullmatch(url) is None:
        return "the URL has a character that no URL may have: a blank, a backslash, a control character, or no ASCII"
    if climbs(url) or "%00" in url:
        return "the URL has .. or NUL in it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        return f"the URL cannot be read: {e}"
    if parts.scheme == "file":
        local = parts.netloc.lower() in ("", "localhost") and parts.path.startswith("/")
        return None if local else "a file: URL names a path of this machine: file:///path"
    if parts.scheme not in ("http", "https"):
        return "the scheme of the URL is not file, http or https"
    # User information serves no one here, and ``http://good.example@evil.example/`` reads like the former.
    if "@" in parts.netloc or "%" in parts.netloc:
        return "the URL has a user, a password or an escape before its path"
    if not parts.hostname:
        return "the URL has no host"
    return "the URL has the port 0" if port == 0 else None


@frozen
class AllowedUrls:
    """
    The regular expressions of ``allowed_urls``.

    A ``file:`` URL is looked at by its path, escapes resolved, in all spellings that an
    expression may have: as ``file:///path``, and as ``/path`` for expressions that begin with a slash.

    :ivar patterns: As the operator wrote them; upper and lower case are the same.
    """

    patterns: tuple[str, ...] = field(validator=deep_iterable(instance_of(str), instance_of(tuple)))
    _compiled: tuple[re.Pattern[str], ...] = field(init=False, repr=False, eq=False)

    @_compiled.default
    def _compile_all(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_compile(pattern) for pattern in self.patterns)

    def match(self, url: str) -> bool:
        """Return whether an expression matches ``url`` as it stands, which says nothing about it being sound."""
        return any(pattern.fullmatch(url) for pattern in self._compiled)

    def permit(self, url: str) -> bool:
        """Say whether ``url`` may be fetched."""
        if unsound(url) is not None:
            return False
        path = local_text(url)
        return self.match(url) if path is None else self._permit_path(path)

    def resolve(self, path: str) -> Path | None:
        """
        Follow the links in a permitted path; it looks at the file system.

        Directories which the expressions name literally may themselves lie behind links:
        these are the operator's.

        :return: The path without links; ``None`` if that is not permitted.
        """
        real = os.path.realpath(path)
        spellings = [real] if real != os.path.normpath(path) else []
        for root in self._roots() if spellings else ():
            real_root = os.path.realpath(root)
            if real == real_root or real.startswith(real_root.rstrip("/") + "/"):
                spellings.append(os.path.join(root, os.path.relpath(real, real_root)))
        # A directory may be named with a slash at its end, and an expression ask for that.
        end = "/" if path.endswith("/") else ""
        permitted = not spellings or any(self._permit_path(os.path.normpath(each) + end) for each in spellings)
        return Path(real) if permitted else None

    def remedy(self, url: str) -> str:
        """Return a hint with the setting that would permit a sound URL, and all else in its directory."""
        parts = urlsplit(url)
        path = unquote(parts.path) if parts.scheme == "file" else parts.path
        # Nothing that a client makes up breaks a line.
        directory = (path if path.isprintable() else parts.path).rpartition("/")[0]
        below = "/.*" if path else "(/.*)?"
        value = _literal(f"{parts.scheme}://{parts.netloc}{directory}") + below
        return f"no expression of allowed_urls matches it; allowed_urls={value} would"

    def _permit_path(self, path: str) -> bool:
        urls = (file_url(path), f"file://{path}", f"file:{path}", f"file://localhost{path}")
        return any(self.match(url) for url in urls) or any(
            pattern.fullmatch(path) for pattern in self._compiled if _OF_PATHS.search(pattern.pattern)
        )

    def _roots(self) -> Iterator[str]:
        """List the directories that the expressions name before anything in them is variable."""
        for pattern in self.patterns:
            for alternative in pattern.split("|"):
                if (literal := _LITERAL_PATH.match(alternative)) is not None:
                    directory = _ESCAPED.sub(r"\1", literal[1]).rpartition("/")[0]
                    if directory:
                        yield unquote(directory)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as e:
        raise ValueError(f"allowed_urls has {pattern!r}, which is no regular expression: {e}") from e


def _literal(text: str) -> str:
    """
    Write an expression that matches ``text`` alone.

    It has classes for escapes, since a properties file takes backslashes away,
    and no comma, which separates expressions.
    """
    return _SPECIAL.sub(lambda special: "." if special[0] in r",^\[]" else f"[{special[0]}]", text)
