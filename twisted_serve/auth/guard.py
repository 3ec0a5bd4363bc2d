# SPDX-License-Identifier: Apache-2.0
"""
Authorize requests before they reach a tree of routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from zope.interface import implementer

from twisted_serve.auth.gate import Allowed, Authorizer, Denied, OpenAuthorizer
from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import TokenKind


@implementer(IResource)
class Guard:
    """
    Require a token for every route that is not explicitly public.

    There is one tree of routes for each kind of token, and one of public routes.  The
    kind of token a request needs selects the tree that handles it.  So a token cannot
    reach a route of another kind, however the routes parse the path, and no route is
    public by omission.

    :param unguarded_trees: The trees by the kind of token they need; ``None`` for the public tree.
    :param refuse: Responds to a request that is not allowed, and returns the body.
    :param admit: Takes a request with a named key, or returns why the key has reached a limit.
    :param reject: Responds to a request that is allowed but whose path is malformed, and returns the body.
    """

    isLeaf = True

    def __init__(
        self,
        unguarded_trees: Mapping[TokenKind | None, IResource],
        gate: Authorizer | OpenAuthorizer,
        refuse: Callable[[IRequest, Denied], bytes],
        reject: Callable[[IRequest, str], bytes],
        admit: Callable[[IRequest, Allowed], Denied | None] = lambda _request, _allowed: None,
    ) -> None:
        self._unguarded_trees = unguarded_trees
        self._gate = gate
        self._refuse = refuse
        self._reject = reject
        self._admit = admit

    def render(self, request: IRequest) -> bytes | int:
        """Render the request with the tree it is allowed to use, or refuse it."""
        target = parse_target(request.uri)
        authorization = request.requestHeaders.getRawHeaders(b"authorization", ())
        verdict = self._gate.ask(request.method, target, authorization)
        if isinstance(verdict, Allowed) and verdict.key is not None:
            verdict = self._admit(request, verdict) or verdict
        if isinstance(verdict, Denied):
            return self._refuse(request, verdict)
        if target.flaw is not None:
            return self._reject(request, target.flaw)
        # The routes must see the path exactly as it was authorized.
        request.prepath = []
        request.postpath = [segment.encode("utf-8") for segment in target.segments or ("",)]
        return self._unguarded_trees[verdict.scope].render(request)  # type: ignore[no-any-return]

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """Return this resource: a request is authorized by its whole path."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Refuse children, which would be reachable without authorization.

        :raise TypeError: always.
        """
        raise TypeError(f"no child {path!r} can be put beside the gate")
