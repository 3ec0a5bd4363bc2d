# SPDX-License-Identifier: Apache-2.0
"""
Be a template process: load, then fork workers.

``root``: the entry of the server's root template. ``loop``: fork whenever the server asks. ``after_load``: a worker
becomes the template of its model version. ``fork_safety``: whether a loaded model can be forked, and what each fork
does first.
"""
