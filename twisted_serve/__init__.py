# SPDX-License-Identifier: Apache-2.0
"""
Serve PyTorch models: TorchServe's drop-in successor, in Python on Twisted.

The names of ``__all__`` are imported on first use, so that importing this package stays cheap and installs no reactor.
``docs/api.md`` lists what is stable.

The map of the code, from the top; each package imports from those below it only:

``testing``        public fakes, Hypothesis strategies, and a server in memory
``cli``            the command ``twisted-serve``; ``__main__`` runs it, too
``launcher``       TorchServe's command line: start and stop a server
``subcommands``    the sub-commands of ``twisted-serve``, which operate servers
``archiver``       pack models and workflows: commands, and a library
``tap``            the ``twistd`` plug-in
``command``        one server in a process of its own: banner, pid file, signals
``plugins``        find plug-ins; SageMaker's endpoints
``service``        :class:`~twisted_serve.service.ModelServer`, the server as a Twisted service
``assembly``       the parts of a server, put together
``fronts``         processes that read and write the connections of clients
``web``            HTTP: listeners, routes, the API as data, the engine
``rpc``            gRPC: listeners, services, the list of methods, the engine
``inprocess``      the calls of the application that runs the server
``planes``         the use cases, independent of the transport
``listening``      ports, TLS, certificates, the limit on connections
``scheduling``     from queues to workers: dispatch, retries, restarts, scaling
``workers``        worker and template processes, seen from the server
``models``         registered versions and their settings
``workflows``      graphs of models and functions
``metrics``        metrics and traces, and TorchServe's three modes
``logs``           log lines, their layouts and files
``archives``       locate, fetch, unpack and remove archives
``batching``       queues and batch policies
``auth``           tokens, key files and the check of each request
``config``         settings and their sources
``openinference``  the Open Inference Protocol's tensors
``backend``        the worker process
``handlers``       base classes and tools for authors of handlers
``eventloop``      timers, writes and threads for Twisted's reactor
``system``         the operating system: accounts, processes, memory
``interfaces``     what has more than one implementation: workers, their provider, authorizers, observers, the reactor
``endpoints``      what authors of plug-ins import
``wire``           messages between the server and its processes
``errors``         the errors that clients see
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_serve import errors
    from twisted_serve.auth.tokens import TokenKind
    from twisted_serve.config.options import ServerOptions
    from twisted_serve.inprocess.models import Registered
    from twisted_serve.inprocess.streams import Answer, Stream
    from twisted_serve.interfaces import AccessRequest, IAuthorizer, Operation, Principal, Refusal, ServerObserver
    from twisted_serve.listening.roles import Role
    from twisted_serve.service import Dependencies, ModelServer

__all__ = [
    "COMPATIBLE_WITH",
    "AccessRequest",
    "Answer",
    "Dependencies",
    "IAuthorizer",
    "ModelServer",
    "Operation",
    "Principal",
    "Refusal",
    "Registered",
    "Role",
    "ServerObserver",
    "ServerOptions",
    "Stream",
    "TokenKind",
    "__version__",
    "errors",
]

__version__ = "0.1.0"

#: The TorchServe release whose behaviour this server keeps.
COMPATIBLE_WITH = "0.12.0"

_MODULES = {
    "AccessRequest": "twisted_serve.interfaces",
    "Answer": "twisted_serve.inprocess.streams",
    "Dependencies": "twisted_serve.service",
    "IAuthorizer": "twisted_serve.interfaces",
    "ModelServer": "twisted_serve.service",
    "Operation": "twisted_serve.interfaces",
    "Principal": "twisted_serve.interfaces",
    "Refusal": "twisted_serve.interfaces",
    "Registered": "twisted_serve.inprocess.models",
    "Role": "twisted_serve.listening.roles",
    "ServerObserver": "twisted_serve.interfaces",
    "ServerOptions": "twisted_serve.config.options",
    "Stream": "twisted_serve.inprocess.streams",
    "TokenKind": "twisted_serve.auth.tokens",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name == "errors":
        return import_module("twisted_serve.errors")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the names of this module, those not yet imported included."""
    return sorted({*globals(), *__all__})
