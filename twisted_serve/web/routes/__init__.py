# SPDX-License-Identifier: Apache-2.0
"""
Answer requests: one function for each operation of ``web.api``.

``predictions``: what all routes that predict share. ``inference``, ``kserve``, ``sagemaker``, ``tensors``: the routes
that predict; ``fast_lane``: usual predictions, in one pass. ``management``, ``workflows``, ``changes``, ``keys``: those
that change the server. ``metrics``, ``probes``, ``plugins``: the others. ``hints``: log lines about likely mistakes of
clients.
"""
