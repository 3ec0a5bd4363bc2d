# SPDX-License-Identifier: Apache-2.0
"""
Run workers and what they need; ``scheduling`` uses them through ``interfaces.IWorkerProvider``.

``local``: the provider, whose workers are processes of this machine. ``process``: one such process, its socket and its
output. ``template``: workers forked from template processes. ``packages``: pip installations for one model.
"""
