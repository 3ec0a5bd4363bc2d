# SPDX-License-Identifier: Apache-2.0
"""
The HTTP API as data: each route once.

``route``, ``template``: one route, and its path. ``inference``, ``management``, ``workflows``, ``keys``: the routes.
``surface``: those of a listener. ``lookup``: the route of a path. ``access``: the key that each path needs.
``segments``: the first segments that are taken.

``access``, ``routing.binding`` (Klein's rules, the fast path), ``routing.tracing`` (names in traces) and ``openapi``
are made from the routes; ``auth.scopes`` maps the operation of each to a key.
"""
