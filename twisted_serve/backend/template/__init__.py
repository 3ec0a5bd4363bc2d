# SPDX-License-Identifier: Apache-2.0
"""
Run a template process (zygote): load, then fork workers.

``root``: the entry point of the server's root template. ``loop``: fork, reap and signal workers on request.
``after_load``: turn a worker into the template of its model version. ``fork_safety``: check that a loaded model can be
forked, and set up the state of each fork.
"""
