# SPDX-License-Identifier: Apache-2.0
"""
This module implements the search for plug-ins: entry points of distributions, in a directory and in the environment.

What is installed beside the server is served only if it is named; what stands
in ``plugins_path`` was put there to be served.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from twisted_serve.endpoints import GROUP, Endpoint, by_segment

_log = Logger()


class PluginError(ValueError):
    """A plug-in that is to be served and cannot be."""


@frozen
class _Candidate:
    entry_point: EntryPoint
    distribution: str

    def __str__(self) -> str:
        return f"{self.entry_point.name} of {self.distribution}"


def find_endpoints(directory: Path | None, named: Iterable[str]) -> tuple[Endpoint, ...]:
    """
    Import the endpoints which are to be served.

    :param directory: All of its plug-ins are (``plugins_path``); its modules can be imported from then on.
    :param named: The names of others, of distributions which are installed (``plugins``).
    :raise PluginError: for one that is not there, cannot be imported, is no endpoint, or takes another's place.
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
    # Behind everything else: what stands there takes the place of no module of ours.
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
    # One distribution may be found by two ways, e.g. in a checkout and as it is installed.
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
