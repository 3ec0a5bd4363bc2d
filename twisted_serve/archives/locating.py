# SPDX-License-Identifier: Apache-2.0
"""
Decide what an archive's location refers to: an entry of the store, a local path, or a URL.

The rule, which docs/archives.md explains to users: the operator is trusted; a client may name an entry of the store, or
a path or URL that ``allowed_urls`` permits.  An entry of the store may be a symbolic link to anywhere, because only the
operator can create links there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from enum import Enum
from pathlib import Path

from attrs import frozen

from twisted_serve.archives.extraction import not_read
from twisted_serve.archives.safe_paths import has_parent_component, inside, is_possible_name
from twisted_serve.archives.urls import (
    AllowedUrls,
    basename,
    decoded_path,
    file_url,
    has_scheme,
    is_remote,
    local_path,
    url_problem,
)
from twisted_serve.errors import DownloadFailed, ServeError

# The maximum length of a path on Linux.
_MAX_PATH = 4096


class Source(Enum):
    """The origin of a location, which decides what it may refer to."""

    #: A request to register a model or workflow.
    CLIENT = "client"
    #: The application that runs the server; first `at_path` is tried.
    APPLICATION = "application"
    #: ``--models``, ``load_models``.
    OPERATOR = "operator"
    #: A snapshot; it contains `Taken.location`, which is exact.
    SNAPSHOT = "snapshot"


@frozen
class StoreFile:
    """An archive file to unpack."""

    path: Path


@frozen
class StoreDirectory:
    """
    An unpacked archive, served in place.

    :ivar links: Whether symbolic links in the directory may lead out of it.
    """

    path: Path
    links: bool = True


@frozen
class Remote:
    """
    An archive to fetch into the store as ``basename``.

    :ivar trusted: Whether the URL comes from the operator and so needs no permission.
    """

    url: str
    basename: str
    trusted: bool = False


@frozen
class StoreErrors:
    """
    The errors of a store that does not have a requested archive.

    :ivar absent: The class of the error.
    :ivar not_found: The error message, to which the URL is appended.
    :ivar unconfigured: The error message if no store is configured.
    """

    absent: type[ServeError]
    not_found: str
    unconfigured: str

    def nothing_at(self, url: str) -> ServeError:
        """Return the error for a location at which there is no archive."""
        return self.absent(f"{self.not_found}: {url}")


@frozen
class Locator:
    """
    Resolves locations.  All methods access the file system and so may block.

    :ivar store: The directory of archives.
    """

    store: Path
    words: StoreErrors
    allowed: AllowedUrls

    def locate(self, url: str, source: Source) -> StoreFile | StoreDirectory | Remote:
        """
        Return what ``url`` refers to.

        :raise ServeError: of the class `StoreErrors.absent`, if ``url`` refers to nothing that ``source`` may
            name.
        :raise DownloadFailed: if ``url`` is an unsound URL, or its path does not end in a usable file name.
        """
        if not url:
            raise self.words.absent("empty url")
        if not is_remote(url) and len(url) > _MAX_PATH:
            raise self.words.nothing_at(f"{url[:_MAX_PATH]}…")
        if source in (Source.OPERATOR, Source.APPLICATION):
            return self._of_operator(url)
        if source is Source.SNAPSHOT and os.path.isabs(url) and is_possible_name(url):
            return self._first_existing(url, [Path(url)])
        if has_parent_component(url):
            raise self.words.absent(f"Relative path is not allowed in url: {url}")
        # A relative name belongs to the store, whatever the expressions of allowed_urls match.
        if is_remote(url):
            return self._permitted_url(url)
        if has_scheme(url) or not is_possible_name(url):
            raise self.words.nothing_at(url)
        entry = self._entry(url)
        if entry is None and os.path.isabs(url):
            return self._permitted_path(url)
        found = None if entry is None else _archive_at(entry)
        if found is not None:
            return found
        if entry is not None:
            _raise_if_unreadable(url, entry)
        raise self.words.nothing_at(url)

    def _entry(self, name: str) -> Path | None:
        """Return the path of an entry of the store; only its last component may be a link to elsewhere."""
        path = self.store / name
        real_store, real_parent = os.path.realpath(self.store), os.path.realpath(path.parent)
        if real_parent != real_store and not inside(self.store, path.parent):
            return None
        # An absolute path may spell the path of the store differently, e.g. through a link.
        known = path.is_relative_to(self.store)
        return path if known else self.store / os.path.relpath(real_parent, real_store) / path.name

    def _of_operator(self, url: str) -> StoreFile | StoreDirectory | Remote:
        if is_remote(url):
            if (problem := url_problem(url)) is not None:
                raise DownloadFailed(f"Failed to download archive from: {url}").because(problem)
            path = local_path(url)
            return self._remote(url, trusted=True) if path is None else self._first_existing(url, [path])
        if has_scheme(url) or not is_possible_name(url):
            raise self.words.nothing_at(url)
        return self._first_existing(url, self._candidates(url))

    def _candidates(self, text: str) -> Iterator[Path]:
        """
        Yield what an operator's path may refer to, in order of precedence.

        The order is TorchServe's, which looks for the last component in the store before it looks at the path
        (``docs/torchserve/config_cli.md`` §8.1); before that comes the whole path relative to the store, and last a
        file elsewhere.
        """
        entry = self.store / text
        if not has_parent_component(text) and entry.is_relative_to(self.store) and entry != self.store:
            yield entry
        path, base = Path.cwd() / os.path.expanduser(text), Path(text).name
        by_name = [self.store / base] if base not in ("", "..") else []
        yield from (candidate for candidate in by_name if os.path.isfile(candidate))
        if os.path.isdir(path):
            yield path
        yield from by_name
        yield path

    def _first_existing(self, url: str, candidates: Iterator[Path] | list[Path]) -> StoreFile | StoreDirectory:
        """
        Return the first candidate that is a file or a directory.

        :raise ServeError: with the paths that were tried, if none exists.
        """
        problems: dict[str, None] = {}
        for path in candidates:
            if (found := _archive_at(path)) is not None:
                return found
            problems[_problem(path)] = None
        raise self.words.nothing_at(url).because("; ".join([*problems, *self._suggestion(url)]) or None)

    def _suggestion(self, url: str) -> Iterator[str]:
        """Yield a suggestion of the store's entry with the most similar name, if one is similar."""
        try:
            names = [name for name in os.listdir(self.store) if not name.startswith(".")]
        except OSError:
            return
        near = get_close_matches(Path(url).name, names, n=1)
        if near and near[0] != Path(url).name:
            yield f"did you mean {near[0]}?"

    def _permitted_url(self, url: str) -> StoreFile | StoreDirectory | Remote:
        problem = url_problem(url)
        if problem is not None and self.allowed.match(url):
            raise DownloadFailed(f"Failed to download archive from: {url}").because(problem)
        if problem is not None or not self.allowed.permit(url):
            reason = problem or self.allowed.suggested_setting(url)
            raise self.words.absent(f"Given URL {url} does not match any allowed URL(s)").because(reason)
        text = decoded_path(url)
        return self._remote(url) if text is None else self._resolved(url, text)

    def _permitted_path(self, path: str) -> StoreDirectory | Remote:
        """Resolve an absolute path as the ``file:`` URL of the same file."""
        url = file_url(path)
        if url_problem(url) is not None or not self.allowed.permit(url):
            raise self.words.nothing_at(path).because(
                f"it is no entry of the store, and no path that is permitted: {self.allowed.suggested_setting(url)}"
            )
        return self._resolved(path, path)

    def _resolved(self, url: str, text: str) -> StoreDirectory | Remote:
        """
        Follow the links of a permitted path, which must lead to a permitted path.

        :return: A path without links, so that a link created later cannot redirect it.
        """
        real = self.allowed.resolve(text)
        if real is None:
            raise self.words.absent(f"Given URL {url} does not match any allowed URL(s)").because(
                "a symbolic link in its path leads to what allowed_urls does not match"
            )
        if os.path.isdir(real):
            return StoreDirectory(real, links=False)
        # The URL as named: its links are followed again when the file is opened, and must still be permitted then.
        return self._remote(url if is_remote(url) else file_url(url))

    def _remote(self, url: str, trusted: bool = False) -> Remote:
        name = basename(url)
        if name is None:
            raise DownloadFailed(f"Failed to download archive from: {url}").because(
                "its path does not end in the name of a file"
            )
        return Remote(url, name, trusted)


def at_path(url: str) -> StoreFile | StoreDirectory | None:
    """Return the archive at a path relative to the working directory; ``None`` if there is none, and for a URL."""
    # Code that names a path means this one, whatever the store contains.
    return None if has_scheme(url) or not is_possible_name(url) else _archive_at(Path.cwd() / os.path.expanduser(url))


def _archive_at(path: Path) -> StoreFile | StoreDirectory | None:
    # Unlike Path.is_file, these return false for a name that is too long.
    if os.path.isfile(path):
        return StoreFile(path)
    return StoreDirectory(path) if os.path.isdir(path) else None


def _raise_if_unreadable(url: str, path: Path) -> None:
    """Raise `InternalError` if the path is behind a directory that this process may not enter."""
    try:
        os.stat(path)
    except PermissionError as e:
        raise not_read(url, e) from e
    except OSError:
        pass


def _problem(path: Path) -> str:
    """Return why a path is not an archive."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return f"{path} is a symbolic link that leads nowhere" if os.path.islink(path) else f"there is no {path}"
    except OSError as e:
        return f"{path}: {e.strerror}"
    return f"{path} is neither a file nor a directory"
