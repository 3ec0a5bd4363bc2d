# SPDX-License-Identifier: Apache-2.0
"""
Set up the fronts of a server: the processes that read and write the connections of clients.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.application.service import Service
from twisted.logger import Logger

from twisted_serve.assembly.dependencies import usable_cpus
from twisted_serve.assembly.listeners import Connections, Opening
from twisted_serve.config.options import ServerOptions
from twisted_serve.fronts.keeper import Fronts
from twisted_serve.fronts.processes import FrontProcesses
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.admission import Admission
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.site import ServeSite
from twisted_serve.wire.fronts import Terms

_log = Logger("twisted_serve.server")

# The fewest processors with which ``auto`` means fronts.
_ENOUGH_PROCESSORS = 4


def number_of_fronts(options: ServerOptions, processors: int) -> int:
    """Return how many fronts there are (``front_processes``)."""
    if options.front_processes == "auto":
        return processors // 2 if processors >= _ENOUGH_PROCESSORS else 0
    return int(options.front_processes)


@frozen
class FrontsOfServer:
    """
    The fronts of one server.

    :ivar services: Start and end the processes; none without fronts.
    :ivar connections: What fronts have, to be finished before the connections of the server's own process.
    """

    services: Sequence[Service]
    connections: Sequence[Connections]


def fronts_of(
    reactor: IServeReactor,
    options: ServerOptions,
    environment: Mapping[str, str],
    openings: Sequence[Opening],
    limits: Limits,
    admission: Admission,
) -> FrontsOfServer:
    """
    Return the fronts of a server, which serve all its listeners that have a fast lane.

    :param environment: The environment of the processes; without the keys.
    """
    number = number_of_fronts(options, usable_cpus())
    sites = [each.factory for each in openings if isinstance(each.factory, ServeSite) and each.factory.fast_lane]
    if number == 0:
        return FrontsOfServer((), ())
    if not sites:
        _log.warn(
            "front_processes is {number}, but no listener has a fast lane, without which fronts have nothing to do",
            number=options.front_processes,
        )
        return FrontsOfServer((), ())
    fronts = Fronts(reactor)
    terms = Terms(limits.body, limits.body_timeout, limits.keepalive_timeout)
    for site in sites:
        site.fronts = fronts
    admission.watch(fronts.connections)
    processes = FrontProcesses(reactor, number, sys.executable, environment, fronts, terms)
    return FrontsOfServer((processes,), (fronts,))
