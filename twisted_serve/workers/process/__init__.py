# SPDX-License-Identifier: Apache-2.0
"""
Run one worker as a process of this machine.

``launch`` and ``spawn``: start one. ``process``: its exit and its output, which ``output`` splits into lines.
``connection``: its socket, whose frames ``framing`` decodes. ``worker``: all of these as one ``IWorker``.
"""
