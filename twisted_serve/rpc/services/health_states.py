# SPDX-License-Identifier: Apache-2.0
"""
Find the states of a server and its models by the names that health checks have for them.

The empty name, ``readiness`` and the names of the services of this server are what ``/readyz`` is, ``liveness`` is what
``/livez`` is.  ``model`` and ``model/version`` have the state of a model.
"""

from __future__ import annotations

from attrs import frozen

from twisted_serve.errors import InsufficientScope, ModelNotFound, ModelVersionNotFound, ServiceUnavailable
from twisted_serve.planes.inference import InferencePlane, SharedInference
from twisted_serve.rpc.messages import HealthCheckResponse

_READINESS, _LIVENESS = "readiness", "liveness"


@frozen
class States:
    """
    The states of the services and models of a server.

    :param services: The full names of the services.
    """

    _plane: SharedInference
    _services: frozenset[str]

    def of(self, name: str, models: InferencePlane | None) -> int | None:
        """
        Return the state of a service or model; ``None`` if there is none with this name.

        :param models: The models whose names count; ``None`` if none do.
        """
        if name == _LIVENESS:
            return HealthCheckResponse.SERVING
        if self.is_server(name):
            return _state(self._plane.ready())
        return None if models is None else _of_model(models, name)

    def is_server(self, name: str) -> bool:
        """Return whether a name is not that of a model, whichever models there are."""
        return name in {"", _READINESS, _LIVENESS} or name in self._services

    def all(self, models: InferencePlane | None) -> dict[str, int]:
        """Return the state of each name, of models only that of the default version."""
        names = ["", _LIVENESS, _READINESS, *sorted(self._services), *(() if models is None else models.names())]
        return {name: state for name in names if (state := self.of(name, models)) is not None}


def _of_model(models: InferencePlane, name: str) -> int | None:
    model, _, version = name.partition("/")
    try:
        return _state(models.model_ready(model, version or None) and not models.stopping)
    except (InsufficientScope, ModelNotFound, ModelVersionNotFound):
        return None
    except ServiceUnavailable:
        return HealthCheckResponse.NOT_SERVING


def _state(serving: bool) -> int:
    return HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
