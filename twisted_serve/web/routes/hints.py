# SPDX-License-Identifier: Apache-2.0
"""
Log hints about likely mistakes of clients.

``curl -d`` sends its data as a form unless a header says otherwise. JSON then reaches the handler as no input, or as a
field with a strange name, exactly as with TorchServe.
"""

from __future__ import annotations

from twisted.logger import Logger

from twisted_serve.logs import MODEL_LOG
from twisted_serve.planes.inputs import URLENCODED, media_type
from twisted_serve.web.http.request import ServeRequest, body_of

_log = Logger("twisted_serve.web")

# Seconds between two hints about the same model.
INTERVAL = 60.0


class FormHints:
    """Log to the model log that JSON was sent as a form, at most once a minute per model."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def look(self, request: ServeRequest, content_type: str, model: str) -> None:
        """
        Log a hint if the body of a request looks like JSON sent as a form.

        :param content_type: The header's value.
        :param model: The name of a registered model.
        """
        now = request.channel.site.reactor.seconds()
        if media_type(content_type).lower() != URLENCODED or now < self._next.get(model, now):
            return
        if not body_of(request)[:64].lstrip().startswith((b"{", b"[")):
            return
        self._next[model] = now + INTERVAL
        _log.warn(
            "Model {model}, request {request_id}: the body looks like JSON and came as a form, as curl -d sends it; "
            'send it with the header "Content-Type: application/json"',
            model=model,
            request_id=request.answer_id,
            logger_name=MODEL_LOG,
        )
