# SPDX-License-Identifier: Apache-2.0
"""
The interfaces that have, or will have, more than one implementation.

``workers``: workers and their provider. ``reactor``: the reactor, and the source of dates.
``authorization``: an application's authorizer. ``events``: what a server tells its observers.
"""

from twisted_serve.interfaces.authorization import (
    AccessRequest,
    IAuthorizer,
    Operation,
    Principal,
    Refusal,
    TokenKind,
    Verdict,
)
from twisted_serve.interfaces.events import ServerObserver
from twisted_serve.interfaces.reactor import IServeReactor, Now
from twisted_serve.interfaces.workers import IWorker, IWorkerProvider, Placement, WorkerSpec

__all__ = [
    "AccessRequest",
    "IAuthorizer",
    "IServeReactor",
    "IWorker",
    "IWorkerProvider",
    "Now",
    "Operation",
    "Placement",
    "Principal",
    "Refusal",
    "ServerObserver",
    "TokenKind",
    "Verdict",
    "WorkerSpec",
]
