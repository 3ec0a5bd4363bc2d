# SPDX-License-Identifier: Apache-2.0
"""
Run a workflow for one request: nodes in parallel, with timeouts and retries.

The first node that fails finally fails the request and cancels the nodes that are still running; so does cancelling the
request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_serve.errors import InternalError, ServeError
from twisted_serve.wire.messages import Item, Part
from twisted_serve.workflows.progress import Progress
from twisted_serve.workflows.spec import Node, WorkflowSpec


@frozen
class Attempt:
    """
    One call of a node.

    :ivar number: 1 for the first attempt.
    """

    node: str
    number: int
    parts: list[Part]


#: Calls a node.  Cancelling the Deferred cancels the call.
Predict: TypeAlias = Callable[[Attempt], Deferred[Item]]


async def execute(
    spec: WorkflowSpec, inputs: Sequence[Part], predict: Predict, clock: IReactorTime
) -> bytes | Mapping[str, Any]:
    """
    Process a request.

    :param predict: May also raise the errors with which its Deferred can fail.
    :return: See `Progress.answer`.
    :raise InternalError: naming the node that failed or timed out.
    """
    progress = Progress(spec.dag, inputs)
    running: list[Deferred[None]] = []
    # A queue rather than nested callbacks, which would make the stack as deep as the longest path.
    ended: DeferredQueue[tuple[str, bytes | Failure]] = DeferredQueue()

    finished = False

    def report(answer: bytes | Failure, name: str) -> None:
        if not finished:
            ended.put((name, answer))

    try:
        while not progress.finished:
            for name in progress.ready():
                asking = _call_with_retries(spec.nodes[name], progress.inputs_of(name), predict, clock)
                running.append(Deferred.fromCoroutine(asking).addBoth(report, name))
            name, answer = await ended.get()
            if isinstance(answer, Failure):
                answer.raiseException()
            else:
                progress.done(name, answer)
        return progress.answer()
    finally:
        finished = True
        for asked in running:
            asked.cancel()


async def _call_with_retries(node: Node, parts: list[Part], predict: Predict, clock: IReactorTime) -> bytes:
    """Call a node, with retries."""
    attempts = 1 + node.settings.retry_attempts
    failed: list[str] = []
    while len(failed) < attempts:
        answer = await _call_once(node, Attempt(node.name, len(failed) + 1, parts), predict, clock)
        if isinstance(answer, bytes):
            return answer
        failed.append(answer)
    tries = "the attempt" if attempts == 1 else f"all {attempts} attempts"
    raise InternalError(f"Error executing {node.name}").because(f"{tries} failed, the last one because {failed[-1]}")


async def _call_once(node: Node, attempt: Attempt, predict: Predict, clock: IReactorTime) -> bytes | str:
    """Call a node once; return its response body, or the reason for its failure."""
    try:
        item = await predict(attempt).addTimeout(node.settings.timeout / 1000, clock)
    except TookTooLong:
        return f"there was no answer within {node.settings.timeout} ms"
    except ServeError as e:
        return f"of this: {e.reason or e.message}"
    return item.body if item.status < 400 else f"it answered with status {item.status}"
