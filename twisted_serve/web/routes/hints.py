# SPDX-License-Identifier: Apache-2.0
"""
Write hints into the log about requests that a client most likely did not mean as they are.

``curl -d`` sends its data as a form unless it is told otherwise, and what is no form then comes to the handler as
nothing, or as a field with a strange name, exactly as with TorchServe.
"""

from __future__ import annotations

from twisted.logger import Logger

from twisted_serve.logs import MODEL_LOG
from twisted_serve.web.http.bodies import URLENCODED, body_of, media_type
from twisted_serve.web.http.request import ServeRequest

# Seconds from one hint about a model to the next.
INTERVAL = 60.0


class FormHints:
    """Writes into the model log that JSON came as a form: once a minute for each model."""

    _log = Logger("twisted_serve.web")

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def look(self, request: ServeRequest, content_type: str, model: str) -> None:
        """
        Look at a request whose inputs are not what one would expect of a form.

        :param content_type: The header's value.
        :param model: The name of a model that there is.
        """
        now = request.channel.site.reactor.seconds()
        if media_type(content_type).lower() != URLENCODED or now < self._next.get(model, now):
            return
        if not body_of(request)[:64].lstrip().startswith((b"{", b"[")):
            return
        self._next[model] = now + INTERVAL
        self._log.warn(
            "Model {model}, request {request_id}: the body looks like JSON and came as a form, as curl -d sends it; "
            'send it with the header "Content-Type: application/json"',
            model=model,
            request_id=request.answer_id,
            logger_name=MODEL_LOG,
        )
