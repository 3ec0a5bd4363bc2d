# SPDX-License-Identifier: Apache-2.0
"""
Offer TorchServe's names to handlers.

``names``: ``import ts.…`` finds our modules. ``service``, ``frames``: ``ts.service.Service`` and its response frame,
for tests of handlers.
"""
