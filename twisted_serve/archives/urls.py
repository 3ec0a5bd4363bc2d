# SPDX-License-Identifier: Apache-2.0
"""
Decide which URLs may be fetched, by ``allowed_urls``.

Two checks apply to a URL: whether it is sound, i.e. means the same to the operator's regular expression and to the HTTP
client; and whether an expression matches all of it (``docs/torchserve/config_cli.md`` §8.3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from attrs import field, frozen
from attrs.validators import deep_iterable, instance_of

from twisted_serve.archives.safe_paths import has_parent_component

# Maximum length of a URL in characters; the request lines of this server's listeners are shorter.
_MAX_LENGTH = 8192

_REMOTE = re.compile(r"(file|https?):", re.IGNORECASE)
_ANY_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

# Printable ASCII without blanks and without backslashes, which some parsers treat as slashes:
# ``http://good.example\@evil.example/``.
_PRINTABLE = re.compile(r"[!-\[\]-~]+")

# Characters that are not escaped in the path of a URL (RFC 3986, pchar and slash).
_PATH_CHARACTERS = "/!$&'()*+,;=:@-._~"

# Characters with a special meaning in a regular expression, and the comma that separates expressions.
_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|(),]")

# Matches an expression for paths, or an expression with an alternative for paths.
_PATH_EXPRESSION = re.compile(r"(?:^|\|)[(?:^]*/")

# The literal path at the beginning of an expression, up to its first variable part; an unescaped dot is most often
# meant literally.
_LITERAL_PATH = re.compile(
    r"[(?:^]*(?:file:(?://(?:localhost)?)?)?(/(?:[\w/%~=@!,;'&#:-]|\\\W|\[[^\]^\\]\]|\.(?![*+?{]))*)", re.IGNORECASE
)
_ESCAPED = re.compile(r"(?:\\|\[)(\W)\]?")


def is_remote(url: str) -> bool:
    """Return whether ``url`` is to be fetched: ``file:``, ``http:`` or ``https:``."""
    return _REMOTE.match(url) is not None


def has_scheme(url: str) -> bool:
    """Return whether ``url`` has any scheme, e.g. ``s3://…``, and so cannot be a name in the model store."""
    return is_remote(url) or _ANY_SCHEME.match(url) is not None


def basename(url: str) -> str | None:
    """Return the last component of the URL's path, or None if it is not a safe file name."""
    name = urlsplit(url).path.rpartition("/")[2]
    # A hidden file is not a model, and a shell or a scan of the store could treat it specially.
    return name if name and not name.startswith(".") and len(name) <= 255 else None


def decoded_path(url: str) -> str | None:
    """Return the path of a sound ``file:`` URL with percent escapes decoded; ``None`` for other URLs."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else None


def local_path(url: str) -> Path | None:
    """Return the local path that a sound ``file:`` URL names; ``None`` for other URLs."""
    text = decoded_path(url)
    return None if text is None else Path(text)


def file_url(path: str) -> str:
    """Return the ``file:`` URL of an absolute path."""
    return f"file://{quote(path, safe=_PATH_CHARACTERS)}"


def url_problem(url: str) -> str | None:
    """
    Return why a URL is never fetched: it is malformed, or an expression and the HTTP client would read it differently.

    :return: The problem; ``None`` for a sound URL.
    """
    if len(url) > _MAX_LENGTH:
        return f"the URL has more than {_MAX_LENGTH} characters"
    if _PRINTABLE.fullmatch(url) is None:
        return "the URL has a character that no URL may have: a blank, a backslash, a control character, or no ASCII"
    if has_parent_component(url) or "%00" in url:
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
    # User information is not needed, and ``http://good.example@evil.example/`` looks like good.example.
    if "@" in parts.netloc or "%" in parts.netloc:
        return "the URL has a user, a password or an escape before its path"
    if not parts.hostname:
        return "the URL has no host"
    return "the URL has the port 0" if port == 0 else None


@frozen
class AllowedUrls:
    """
    The regular expressions of ``allowed_urls``.

    A ``file:`` URL is matched by its decoded path in every spelling that an expression may use: as ``file:///path``,
    and as ``/path`` for expressions that begin with a slash.

    :ivar patterns: As the operator wrote them; matching ignores case.
    """

    patterns: tuple[str, ...] = field(validator=deep_iterable(instance_of(str), instance_of(tuple)))
    _compiled: tuple[re.Pattern[str], ...] = field(init=False, repr=False, eq=False)

    @_compiled.default
    def _compile_all(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_compile(pattern) for pattern in self.patterns)

    def match(self, url: str) -> bool:
        """Return whether an expression matches ``url`` as written, regardless of whether ``url`` is sound."""
        return any(pattern.fullmatch(url) for pattern in self._compiled)

    def permit(self, url: str) -> bool:
        """Return whether ``url`` may be fetched."""
        if url_problem(url) is not None:
            return False
        path = decoded_path(url)
        return self.match(url) if path is None else self._permit_path(path)

    def resolve(self, path: str) -> Path | None:
        """
        Follow the links in a permitted path, which requires file system access.

        Directories that the expressions name literally may themselves be behind links, since the operator created
        those.

        :return: The path without links; ``None`` if that path is not permitted.
        """
        real = os.path.realpath(path)
        spellings = [real] if real != os.path.normpath(path) else []
        for root in self._roots() if spellings else ():
            real_root = os.path.realpath(root)
            if real == real_root or real.startswith(real_root.rstrip("/") + "/"):
                spellings.append(os.path.join(root, os.path.relpath(real, real_root)))
        # A directory's path may end in a slash, which an expression may require.
        end = "/" if path.endswith("/") else ""
        permitted = not spellings or any(self._permit_path(os.path.normpath(each) + end) for each in spellings)
        return Path(real) if permitted else None

    def suggested_setting(self, url: str) -> str:
        """Return a hint with the setting that would permit a sound URL and all others in its directory."""
        parts = urlsplit(url)
        path = unquote(parts.path) if parts.scheme == "file" else parts.path
        # A path with a line break from a client must not break the log line.
        directory = (path if path.isprintable() else parts.path).rpartition("/")[0]
        below = "/.*" if path else "(/.*)?"
        value = _literal(f"{parts.scheme}://{parts.netloc}{directory}") + below
        return f"no expression of allowed_urls matches it; allowed_urls={value} would"

    def _permit_path(self, path: str) -> bool:
        urls = (file_url(path), f"file://{path}", f"file:{path}", f"file://localhost{path}")
        return any(self.match(url) for url in urls) or any(
            pattern.fullmatch(path) for pattern in self._compiled if _PATH_EXPRESSION.search(pattern.pattern)
        )

    def _roots(self) -> Iterator[str]:
        """Yield the literal directory prefixes of the expressions."""
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
    Return a regular expression that matches ``text`` exactly.

    It escapes with character classes, because a properties file drops backslashes, and contains no comma, which
    separates expressions.
    """
    return _SPECIAL.sub(lambda special: "." if special[0] in r",^\[]" else f"[{special[0]}]", text)
