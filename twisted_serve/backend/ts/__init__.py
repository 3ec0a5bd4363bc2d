# SPDX-License-Identifier: Apache-2.0
"""
Provide TorchServe's names to handlers.

``names``: resolve ``import ts.…`` to our modules. ``service``, ``frames``: ``ts.service.Service`` and its response
frame, for tests of handlers.
"""
