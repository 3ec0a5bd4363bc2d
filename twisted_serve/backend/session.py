# SPDX-License-Identifier: Apache-2.0
"""
Run a worker's protocol: load the model, then answer batches until the server closes the connection.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum

from twisted_serve.backend.call import Outlet
from twisted_serve.backend.channel import Channel
from twisted_serve.backend.faults import complain, out_of_resources, reason
from twisted_serve.backend.service import Service, open_service
from twisted_serve.wire.codec import WireError
from twisted_serve.wire.messages import Loaded, LoadFailed, LoadModel, Predict, Predicted, PredictFailed


class ExitCode(IntEnum):
    """The exit code of a worker."""

    #: The server closed the socket.
    DONE = 0
    #: The handler could not be loaded; the error has been sent to the server.
    NOT_LOADED = 1
    #: The server broke the protocol.
    PROTOCOL_ERROR = 3


def serve(
    channel: Channel,
    enter: Callable[[str], None],
    settle: Callable[[Service, Channel], Channel] = lambda service, channel: channel,
) -> ExitCode:
    """
    Run a worker until it ends; return its exit code.

    :param enter: Prepares the process for a model directory: working directory and import path.
    :param settle: Called after the model has loaded; returns the channel to continue with. It may fork, and return in
        several processes, each with the channel of another worker. It is not called for an asynchronous handler, whose
        event loop is running by then.
    """
    try:
        load = channel.receive()
        if load is None:
            return ExitCode.DONE
        if not isinstance(load, LoadModel):
            raise WireError(f"{type(load).__name__} came before LoadModel")
        if load.asynchronous:
            return _serve_many(channel, load, enter)
        return _serve_one_by_one(channel, load, enter, settle)
    except WireError as e:
        complain(f"worker: the server broke the protocol: {e}")
        return ExitCode.PROTOCOL_ERROR
    except ConnectionError:
        # The server closed the connection during a send: a normal end.
        return ExitCode.DONE


def _serve_one_by_one(
    channel: Channel, load: LoadModel, enter: Callable[[str], None], settle: Callable[[Service, Channel], Channel]
) -> ExitCode:
    service = _load(channel, load, enter, channel)
    if service is None:
        return ExitCode.NOT_LOADED
    channel = settle(service, channel)
    channel.send(Loaded())
    while (message := channel.receive()) is not None:
        if not isinstance(message, Predict):
            raise WireError(f"{type(message).__name__} came after LoadModel")
        request_ids = [job.request_id for job in message.jobs]
        if request_ids and channel.have_gone(request_ids):
            answer: Predicted | PredictFailed = PredictFailed(message.batch_id, 503, "Nobody waits for this any more.")
        else:
            answer = service.answer(message)
        channel.forget(request_ids)
        channel.answer(answer)
    return ExitCode.DONE


def _serve_many(channel: Channel, load: LoadModel, enter: Callable[[str], None]) -> ExitCode:
    import asyncio  # noqa: PLC0415 - takes 60 ms, needed by some workers only

    from twisted_serve.backend.concurrent import Conversation, LoopOutlet  # noqa: PLC0415 - takes 60 ms, needed by some workers only

    async def conversation() -> ExitCode:
        # The handler is loaded with the loop running, because it may create tasks.
        service = _load(channel, load, enter, LoopOutlet(channel))
        if service is None:
            return ExitCode.NOT_LOADED
        channel.send(Loaded())
        await Conversation(channel, service).hold()
        return ExitCode.DONE

    return asyncio.run(conversation())


def _load(channel: Channel, load: LoadModel, enter: Callable[[str], None], outlet: Outlet) -> Service | None:
    try:
        enter(load.model_dir)
        # After the model's directory, which is the first.
        sys.path[1:1] = load.import_path
        return open_service(load, outlet)
    # ``SystemExit`` too: a handler that calls ``sys.exit`` while it is imported has failed to load.
    except BaseException as e:
        complain("The handler could not be loaded.", e)
        said = reason(e, load.model_dir)
        if isinstance(e, (MemoryError, RuntimeError)) and out_of_resources(e):
            channel.send(LoadFailed(507, f"System out of memory: {said}", printed=True))
        else:
            channel.send(LoadFailed(500, said, printed=True))
        return None
