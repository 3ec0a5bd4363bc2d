# SPDX-License-Identifier: Apache-2.0
"""
Submit requests of the application to workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from types import NoneType
from typing import TypeAlias

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer

from twisted_serve.errors import BadRequest, RequestTooLarge
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.inprocess.arguments import require_optional_texts, require_texts
from twisted_serve.inprocess.streams import Answer, Stream, answer_of
from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.inputs import parts_of, takes_long
from twisted_serve.planes.job_headers import EXPLAIN, PREDICT, hidden_headers, job_headers
from twisted_serve.wire.header_text import CONTROL
from twisted_serve.wire.messages import Item, Job, Part

#: The input of a prediction: a body, or the fields of a form by name.
Input: TypeAlias = "bytes | Mapping[str, bytes | str]"

# In seconds; longer than any caller waits.
_LONGEST_TIMEOUT = 24 * 3600

# A handler sees all headers of the application, except those by which the server states the route.
_HIDDEN = hidden_headers(tokens=False)
_ROUTE = {"url_path": ""}


@frozen
class Call:
    """
    The arguments of a prediction, as `ModelServer.predict` documents them.

    :ivar model: The name of the model.
    """

    model: str
    data: Input
    content_type: str
    version: str | None
    headers: Mapping[str, str] | None
    timeout: float | None
    explain: bool

    def job_headers(self) -> dict[str, str]:
        """
        Return the headers for the handler.

        :raise BadRequest: for a header that HTTP could not transport.
        """
        if not isinstance(self.headers, (Mapping, NoneType)):
            raise BadRequest(f"headers must be a mapping of strings, not {type(self.headers).__name__}.")
        if not isinstance(self.content_type, str):
            raise BadRequest(f"content_type must be a string, not {self.content_type!r:.200}.")
        sent = dict(self.headers or {})
        if self.content_type:
            sent["Content-Type"] = self.content_type
        pairs = []
        for name, value in sent.items():
            try:
                pairs.append((name.encode("ascii"), value.encode("latin-1")))
            except (AttributeError, UnicodeEncodeError):
                raise BadRequest(f"The header {name!r:.200} has a name or value that is not text of HTTP.") from None
            if not name or CONTROL.search(name) or CONTROL.search(value):
                raise BadRequest(f"The header {name!r:.200} has a control character, or no name.")
        return {**job_headers(pairs, _HIDDEN), **_ROUTE, **(EXPLAIN if self.explain else PREDICT)}

    def deadline(self, now: float) -> float | None:
        """
        Return when the caller stops waiting.

        :raise BadRequest: for a timeout that is not a positive number of seconds, a day at most.
        """
        if self.timeout is None:
            return None
        if not (
            isinstance(self.timeout, (int, float)) and self.timeout is not True and 0 < self.timeout <= _LONGEST_TIMEOUT
        ):
            raise BadRequest(
                f"timeout must be a number above 0, at most {_LONGEST_TIMEOUT} seconds, not {self.timeout!r:.200}."
            )
        return now + self.timeout


class Predictions:
    """
    The predictions of one run of a server.

    :param seconds: Return the time in seconds.
    :param limit: The most bytes of one input (``max_request_size``).
    :param unread: The most bytes of a stream that wait for its reader.
    """

    def __init__(
        self,
        plane: InferencePlane,
        seconds: Callable[[], float],
        defer_to_thread: DeferToThread,
        limit: int,
        unread: int,
    ) -> None:
        self._plane = plane
        self._seconds = seconds
        self._defer_to_thread = defer_to_thread
        self._limit = limit
        self._unread = unread
        self._numbers = count(1)

    def predict(self, call: Call) -> Deferred[Answer]:
        """
        Submit a request; the parts of a streamed response are joined.

        :raise ServeError: as `InferencePlane.predict`; and for arguments that cannot be used.
        """
        items: list[Item] = []

        def whole(last: Item) -> Answer:
            if not items:
                return answer_of(last, last.body)
            return answer_of(items[0], b"".join([item.body for item in (*items, last)]))

        return self._submit(call, lambda item, _producer: items.append(item)).addCallback(whole)

    def stream(self, call: Call, stream: Stream) -> Deferred[Item]:
        """
        Submit a request whose intermediate parts go to a stream; return the last one.

        :raise ServeError: as `predict`.
        """
        stream.most_unread = self._unread
        return self._submit(call, stream.chunk)

    def _submit(self, call: Call, on_chunk: Callable[[Item, IPushProducer], None]) -> Deferred[Item]:
        now = self._seconds()
        require_texts(model=call.model)
        require_optional_texts(version=call.version)
        headers, deadline = call.job_headers(), call.deadline(now)

        def submit(parts: list[Part]) -> Deferred[Item]:
            job = Job(f"in-process-{next(self._numbers)}", headers, parts)
            return self._plane.predict(call.model, call.version, job, on_chunk, deadline, Timing(now))

        if isinstance(call.data, Mapping):
            return submit(self._fields(call.data))
        if not isinstance(call.data, (bytes, bytearray, memoryview)):
            raise BadRequest(f"data must be bytes or a mapping of fields, not {type(call.data).__name__}.")
        # Copied only if the application could change it while it waits.
        body = bytes(call.data)
        self._check_size(len(body))
        if takes_long(call.content_type, body):
            # Checked before the form is parsed.
            self._plane.find(call.model, call.version)
            return self._defer_to_thread(parts_of, call.content_type, body).addCallback(submit)
        return submit(parts_of(call.content_type, body))

    def _fields(self, data: Mapping[str, bytes | str]) -> list[Part]:
        parts = [_part_of(name, value) for name, value in data.items()]
        self._check_size(sum(len(part.value) for part in parts))
        return parts

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise RequestTooLarge(f"The data has {size} bytes, more than max_request_size, which is {self._limit}.")


def _part_of(name: str, value: bytes | str) -> Part:
    try:
        name.encode()
        return Part(name, "", value if isinstance(value, bytes) else value.encode(), decode=False)
    except (AttributeError, UnicodeEncodeError):
        text = f"The field {name!r:.200} of data needs a string as name, and bytes or a string as value."
        raise BadRequest(text) from None
