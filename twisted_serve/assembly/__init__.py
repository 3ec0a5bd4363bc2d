# SPDX-License-Identifier: Apache-2.0
"""
Assemble a server from its parts; this package alone knows them all.

``server``: the parts, in order. ``dependencies``: clock, entropy, environment, devices and threads that a server
takes from outside. ``pools``: settings and workers of each model version. ``stores``: archives, and the installer of
packages. ``instrumentation``: metrics of the parts.
"""
