# SPDX-License-Identifier: Apache-2.0
"""
Handle the routes below ``/keys``: keys with names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Coroutine
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from twisted_serve.auth.redaction import shown
from twisted_serve.errors import BadRequest, RequestTooLarge, ResourceNotFound
from twisted_serve.planes.changes import shielded
from twisted_serve.planes.keys import KeysPlane, scopes_of
from twisted_serve.web.http.queries import page_wanted
from twisted_serve.web.http.request import body_of
from twisted_serve.web.http.responses import Body, answer_json, answer_status
from twisted_serve.web.http.site import sender_of
from twisted_serve.web.routing.binding import Endpoints

# In bytes; 64 scopes with long patterns fit in.
LONGEST_BODY = 1 << 15

_T = TypeVar("_T")

#: Where in a body msgspec has found an error: ``$.rate`` or ``$.scopes[2]``.
_PLACE = re.compile(r" - at `\$\.(\w+)[^`]*`")


class _Values(Struct, forbid_unknown_fields=True):
    scopes: list[str] | UnsetType = UNSET
    expires: Annotated[datetime, Meta(tz=True)] | UnsetType | None = UNSET
    expires_in_sec: float | UnsetType = UNSET
    rate: int | UnsetType | None = UNSET
    concurrent: int | UnsetType | None = UNSET


class _New(_Values, forbid_unknown_fields=True, kw_only=True):
    name: str
    scopes: list[str]


class _Change(_Values, forbid_unknown_fields=True, kw_only=True):
    disabled: bool | UnsetType = UNSET


def key_endpoints(plane: KeysPlane | None) -> Endpoints:
    """
    Return the endpoints that manage named keys.

    :param plane: ``None`` without a store of them.
    """
    if plane is None:
        return dict.fromkeys(
            ("listKeys", "createKey", "describeKey", "changeKey", "revokeKey", "rotateKey"), _without_store
        )
    keys = plane

    def list_keys(request: IRequest) -> Body:
        return answer_json(request, 200, keys.list_keys(*page_wanted(request)))

    def describe(request: IRequest, key: str) -> Body:
        return answer_json(request, 200, keys.describe(key))

    def create(request: IRequest) -> Deferred[Body]:
        given = _body_as(request, _New)
        return _made(request, 201, keys.create(sender_of(request), given.name, **_values(given, keys.now())))

    def change(request: IRequest, key: str) -> Deferred[Body]:
        given = _body_as(request, _Change)
        values = _values(given, keys.now())
        if given.disabled is not UNSET:
            values["disabled"] = given.disabled
        if not values:
            raise BadRequest(
                "The JSON body has nothing to change: expected any of scopes, expires, expires_in_sec, disabled, "
                "rate, concurrent."
            )
        changed = shielded(keys.change(sender_of(request), key, **values))
        return changed.addCallback(lambda described: answer_json(request, 200, described))

    def revoke(request: IRequest, key: str) -> Deferred[Body]:
        revoked = shielded(keys.revoke(sender_of(request), key))
        return revoked.addCallback(lambda text: answer_status(request, 200, text))

    def rotate(request: IRequest, key: str) -> Deferred[Body]:
        if body_of(request).strip():
            raise BadRequest("The request has a body, but a rotation has no parameters.")
        return _made(request, 200, keys.rotate(sender_of(request), key))

    return {
        "listKeys": list_keys,
        "createKey": create,
        "describeKey": describe,
        "changeKey": change,
        "revokeKey": revoke,
        "rotateKey": rotate,
    }


def _without_store(request: IRequest, key: str = "") -> Body:
    raise ResourceNotFound(
        "This server has no named keys: set token_store to the path of the file that it shall keep them in."
    )


def _made(request: IRequest, status: int, making: Coroutine[Deferred[Any], Any, dict[str, Any]]) -> Deferred[Body]:
    """Respond with a key and its secret, which no cache keeps."""

    def answer(described: dict[str, Any]) -> Body:
        request.responseHeaders.setRawHeaders(b"Cache-Control", [b"no-store"])
        return answer_json(request, status, described)

    return shielded(making).addCallback(answer)


def _body_as(request: IRequest, wanted: type[_T]) -> _T:
    """
    Parse the body of a request, whatever its content type is: a JSON object of known members, each once.

    :raise BadRequest: naming the member and its value.
    :raise RequestTooLarge: for more than `LONGEST_BODY` bytes.
    """
    body = body_of(request)
    if len(body) > LONGEST_BODY:
        raise RequestTooLarge(f"The JSON body has {len(body)} bytes; one of a key has at most {LONGEST_BODY}.")
    try:
        given = json.loads(body.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"The JSON body cannot be read: {shown(str(e))}.") from None
    if not isinstance(given, dict):
        raise BadRequest("The JSON body is not an object.")
    try:
        return msgspec.convert(given, wanted)
    except msgspec.ValidationError as e:
        raise BadRequest(shown(_problem(str(e), given))) from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _value in pairs]
        raise ValueError(f"the member {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return members


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _problem(error: str, given: dict[str, Any]) -> str:
    """Return the text for an error of msgspec, with the name of the member and its value."""
    place = _PLACE.search(error)
    if place is None:
        # "Object contains unknown field `x`", "Object missing required field `name`".
        return f"The JSON body cannot be used: {error}."
    name = place[1]
    return f"{name} is {json.dumps(given.get(name))}: {_PLACE.sub('', error).lower()}."


def _values(given: _Values, now: datetime) -> dict[str, Any]:
    """
    Return the values of a key that a body has.

    :raise BadRequest: for scopes that are none, and an expiry that is no date.
    """
    values: dict[str, Any] = {}
    if given.scopes is not UNSET:
        values["scopes"] = scopes_of(given.scopes)
    if given.expires_in_sec is not UNSET:
        if given.expires is not UNSET:
            raise BadRequest("Both expires and expires_in_sec are given: give one of them.")
        values["expires"] = _expiry(given.expires_in_sec, now)
    elif given.expires is not UNSET:
        values["expires"] = None if given.expires is None else _in_utc(given.expires)
    if given.rate is not UNSET:
        values["rate"] = given.rate
    if given.concurrent is not UNSET:
        values["concurrent"] = given.concurrent
    return values


def _expiry(seconds: float, now: datetime) -> datetime:
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadRequest(f"expires_in_sec is {seconds}, expected seconds from now, more than 0.")
    try:
        return now + timedelta(seconds=seconds)
    except OverflowError:
        raise BadRequest(f"expires_in_sec is {seconds}: there is no date after so many seconds.") from None


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise BadRequest(f"expires is {moment.isoformat()}, which is no date in UTC.") from None
