# SPDX-License-Identifier: Apache-2.0
"""
Define the messages between the server and a template, the process that forks workers.

``docs/designs/worker-template.md`` describes the protocol.  File descriptors are sent alongside a :class:`Fork`, in the
order of their names in :data:`ENDS`.
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

#: Descriptors sent with a ``Fork``: the worker's socket and output and, if the worker may become a template, its
#: control socket.
ENDS = ("frames", "stdout", "stderr", "control")

#: Maximum length of a control message to the server, because a handler's code may have written it.
MAX_CONTROL_FRAME = 1 << 16


class Fork(Struct, frozen=True, tag="fork"):
    """
    Fork a worker.

    :ivar number: Identifies the worker in later messages; never reused.
    :ivar name: The name of the process in ``ps``.
    :ivar environment: The complete environment; ``None`` keeps the template's.
    :ivar may_divide: Whether the worker is to become a template itself once it has loaded, if that is safe.
    """

    number: int
    name: str
    environment: dict[str, str] | None = None
    may_divide: bool = False


class Signal(Struct, frozen=True, tag="signal"):
    """Send a signal to a process that was forked here, unless it has been reaped."""

    number: int
    signal: int


class TemplateReady(Struct, frozen=True, tag="ready"):
    """All modules are imported."""


class Forked(Struct, frozen=True, tag="forked"):
    """The process has been forked."""

    number: int
    pid: int


class ForkFailed(Struct, frozen=True, tag="fork-failed"):
    """The process could not be forked."""

    number: int
    reason: str


class Exited(Struct, frozen=True, tag="exited"):
    """
    A process has been reaped.

    :ivar status: The status from ``waitpid``.
    """

    number: int
    status: int


class Alone(Struct, frozen=True, tag="alone"):
    """The process that loaded is an ordinary worker and not a template: forking it would not be safe."""

    reason: str


ToTemplate = Union[Fork, Signal]
FromTemplate = Union[TemplateReady, Forked, ForkFailed, Exited, Alone]


def server_control_reader() -> FrameReader[FromTemplate]:
    """Return a reader for the server's end."""
    return FrameReader(msgspec.msgpack.Decoder(FromTemplate), MAX_CONTROL_FRAME)


def template_control_reader() -> FrameReader[ToTemplate]:
    """Return a reader for the template's end."""
    return FrameReader(msgspec.msgpack.Decoder(ToTemplate))
