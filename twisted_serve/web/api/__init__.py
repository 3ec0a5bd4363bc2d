# SPDX-License-Identifier: Apache-2.0
"""
The HTTP API as data.

``route``: one operation. ``inference``, ``management``, ``workflows``: the operations. ``surface``: those of a
listener. ``access``: the key that each path needs.
"""
