# SPDX-License-Identifier: Apache-2.0
"""
Discover plug-ins: entry points of distributions, in a directory and in the environment.

A plug-in installed in the server's environment is served only if a setting names it; all
plug-ins in ``plugins_path`` are served.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from twisted_serve.endpoints import GROUP, Endpoint, by_segment

_log = Logger("twisted_serve.plugins")


class PluginError(ValueError):
    """A configured plug-in cannot be served."""


@frozen
class _Candidate:
    entry_point: EntryPoint
    distribution: str

    def __str__(self) -> str:
        return f"{self.entry_point.name} of {self.distribution}"


def find_endpoints(directory: Path | None, named: Iterable[str]) -> tuple[Endpoint, ...]:
    """
    Import the endpoints to serve.

    :param directory: A directory with plug-ins that are all served (``plugins_path``); its modules become importable.
    :param named: The names of further plug-ins, from installed distributions (``plugins``).
    :raise PluginError: for a plug-in that is missing, cannot be imported, is not an endpoint, or conflicts with
        another.
    """
    chosen = [] if directory is None else _all_in(directory)
    for name in named:
        chosen.append(_installed(name))
    endpoints = tuple(_load(candidate) for candidate in chosen)
    try:
        by_segment(endpoints)
    except ValueError as e:
        raise PluginError(str(e)) from e
    for endpoint in endpoints:
        _log.info(
            "Endpoint /{segment} ({kind}) is served by the plug-in {origin}",
            segment=endpoint.segment,
            kind=endpoint.kind,
            origin=endpoint.origin,
        )
    return endpoints


def _all_in(directory: Path) -> list[_Candidate]:
    # At the end of the path, so that the directory cannot shadow our modules.
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    found = list(_candidates(distributions(path=[str(directory)])))
    if not found:
        _log.warn(
            "There is no plug-in in {directory}: no distribution with entry points in the group {group}; "
            "Java plug-ins cannot be used",
            directory=str(directory),
            group=GROUP,
        )
    return found


def _installed(name: str) -> _Candidate:
    found = [candidate for candidate in _candidates(distributions()) if candidate.entry_point.name == name]
    # A distribution may be found twice, e.g. in a checkout and as installed.
    different = {str(candidate): candidate for candidate in found}
    if not different:
        raise PluginError(f"plugins names {name!r}, and no installed distribution has such an entry point in {GROUP}")
    if len(different) > 1:
        raise PluginError(f"plugins names {name!r}, and there are several: {' and '.join(sorted(different))}")
    return found[0]


def _candidates(found: Iterable[Distribution]) -> Iterator[_Candidate]:
    for distribution in found:
        for entry_point in distribution.entry_points:
            if entry_point.group == GROUP:
                yield _Candidate(entry_point, f"{distribution.metadata['Name']} {distribution.version}")


def _load(candidate: _Candidate) -> Endpoint:
    try:
        endpoint = candidate.entry_point.load()
    except Exception as e:  # whatever its module does when it is imported
        raise PluginError(f"the plug-in {candidate} cannot be imported: {type(e).__name__}: {e}") from e
    if not isinstance(endpoint, Endpoint):
        raise PluginError(f"the plug-in {candidate} is {endpoint!r:.100}, which is no twisted_serve.endpoints.Endpoint")
    return endpoint.coming_from(str(candidate))
