# SPDX-License-Identifier: Apache-2.0
"""
This module implements the messages which pass between the server and a template, the process that forks workers.

``docs/designs/worker-template.md`` says what becomes of them.  Descriptors travel
beside a :class:`Fork`, in the order of their names in :data:`ENDS`.
"""

from __future__ import annotations

from typing import Union

import msgspec
from msgspec import Struct

from twisted_serve.wire.codec import FrameReader

__all__ = [
    "ENDS",
    "MAX_CONTROL_FRAME",
    "Alone",
    "Exited",
    "Fork",
    "ForkFailed",
    "Forked",
    "FromTemplate",
    "Signal",
    "TemplateReady",
    "ToTemplate",
    "server_control_reader",
    "template_control_reader",
]

#: What comes with a ``Fork``: the worker's socket, its output, and for one that may become a template its own control.
ENDS = ("frames", "stdout", "stderr", "control")

#: The longest control message that the server believes; a handler's code may have written it.
MAX_CONTROL_FRAME = 1 << 16


class Fork(Struct, frozen=True, tag="fork"):
    """
    Fork a worker.

    :ivar number: What the two call it from now on; no number is used twice.
    :ivar name: What ``ps`` is to call it.
    :ivar environment: Its whole environment; ``None`` to keep the template's.
    :ivar may_divide: Whether it shall become a template itself once it has loaded, if that is safe.
    """

    number: int
    name: str
    environment: dict[str, str] | None = None
    may_divide: bool = False


class Signal(Struct, frozen=True, tag="signal"):
    """Send a signal to a process that was forked here; none if it has been reaped."""

    number: int
    signal: int


class TemplateReady(Struct, frozen=True, tag="ready"):
    """Everything is imported."""


class Forked(Struct, frozen=True, tag="forked"):
    """There is a process."""

    number: int
    pid: int


class ForkFailed(Struct, frozen=True, tag="fork-failed"):
    """There is none, and will not be."""

    number: int
    reason: str


class Exited(Struct, frozen=True, tag="exited"):
    """
    A process has been reaped.

    :ivar status: As ``waitpid`` gave it.
    """

    number: int
    status: int


class Alone(Struct, frozen=True, tag="alone"):
    """What has loaded is no template but a worker like any other: it would not be safe to fork it."""

    reason: str


ToTemplate = Union[Fork, Signal]
FromTemplate = Union[TemplateReady, Forked, ForkFailed, Exited, Alone]


def server_control_reader() -> FrameReader[FromTemplate]:
    """Make the reader for the server's end."""
    return FrameReader(msgspec.msgpack.Decoder(FromTemplate), MAX_CONTROL_FRAME)


def template_control_reader() -> FrameReader[ToTemplate]:
    """Make the reader for the template's end."""
    return FrameReader(msgspec.msgpack.Decoder(ToTemplate))
