# SPDX-License-Identifier: Apache-2.0
"""
The interfaces that have, or will have, more than one implementation.

``workers``: workers and their provider. ``reactor``: the reactor, and the source of dates.
"""

from twisted_serve.interfaces.reactor import IServeReactor, Now
from twisted_serve.interfaces.workers import IWorker, IWorkerProvider, Placement, WorkerSpec

__all__ = [
    "IServeReactor",
    "IWorker",
    "IWorkerProvider",
    "Now",
    "Placement",
    "WorkerSpec",
]
