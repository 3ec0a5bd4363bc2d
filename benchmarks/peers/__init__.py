# SPDX-License-Identifier: Apache-2.0
"""
Serve the cases with other servers: one script for each, run by the interpreter of that server's own environment.

Each is run as ``python X_app.py CASE PORT``, and starts its server as the documentation of that server does. None can
import anything but its own environment, the handlers, and ``served``.
"""
