# SPDX-License-Identifier: Apache-2.0
"""
Assemble a server from its parts; only this package knows all of them.

``server``: the tree of services, in order. ``tree``: the order of their start and stop. ``files``, ``keys``,
``named_keys``, ``listeners``, ``grpc``, ``loading``, ``mounts``, ``fronts``: services of the tree. ``dependencies``:
clock, entropy, environment, devices and threads that a server takes from outside. ``pools``: settings and workers of
each model version. ``stores``: archives, and the installer of packages. ``instrumentation``: metrics of the parts.
``observing``: events for the application's observers.
"""
