# SPDX-License-Identifier: Apache-2.0
"""
This module implements inference from tensors over HTTP: a request's tensors to a handler, and its outputs back.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred

from twisted_serve.web.answers import Answer
from twisted_serve.web.jobs import Predictor
from twisted_serve.web.request import ServeRequest


def infer(
    predictor: Predictor, request: ServeRequest, model: str, version: str | None, told: Mapping[str, str]
) -> Deferred[Answer]:
    """Answer a request; as :meth:`Predictor.answer`."""
    return predictor.answer(request, model, version, told)
