# SPDX-License-Identifier: Apache-2.0
"""
Record calls that are over: in the access log, metrics and traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from twisted_serve.auth.redaction import Redact
from twisted_serve.auth.scopes import Operation
from twisted_serve.logs import AccessLog
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.spans import Prediction
from twisted_serve.rpc.contracts import End
from twisted_serve.rpc.methods import SERVICES, paths_of
from twisted_serve.rpc.statuses import Code

if TYPE_CHECKING:
    from twisted_serve.metrics.tracing import Tracer

_log = Logger("twisted_serve.rpc")

# The label of calls whose path is no method: clients choose paths.
_UNKNOWN = "unknown"

# The methods by path, as clients send it, with their operations.
_METHODS = {path.encode("ascii"): (path, operation) for name in SERVICES for path, operation in paths_of(name).items()}


class Endings:
    """
    The records of the calls of one server.

    :param redact: Replaces the keys in a path.
    :param tracer: Traces predictions; ``None`` if tracing is off.
    """

    def __init__(self, metrics: ServerMetrics, redact: Redact, tracer: Tracer | None) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._access_log = AccessLog(_log, redact)

    def record(self, end: End) -> None:
        """Record a call (``docs/torchserve/grpc_workflows_kserve.md`` §1.5)."""
        path, operation = _METHODS.get(end.path, (_UNKNOWN, None))
        self._metrics.call_ended(path, end.code.name)
        peer: Any = end.peer
        self._access_log.add(
            (peer.host, peer.port) if hasattr(peer, "port") else None,
            b"gRPC",
            end.path,
            b"HTTP/2.0",
            int(end.code),
            end.ended - end.began,
            end.request_id,
            end.named or end.code is not Code.OK,
            end.principal,
        )
        if self._tracer is not None and not end.refused and end.method is not None and operation is Operation.PREDICT:
            self._trace(self._tracer, end, path)

    def _trace(self, tracer: Tracer, end: End, path: str) -> None:
        parents = [value for name, value in end.metadata if name == b"traceparent"]
        tracer.trace(
            Prediction(
                began=end.began,
                timing=end.timing,
                ended=end.ended,
                method="POST",
                route=path,
                # More than one ``traceparent`` is invalid and ignored.
                parent=parents[0].decode("latin-1") if len(parents) == 1 else "",
                status=None,
                whole=end.whole,
                grpc_code=int(end.code),
            )
        )
