# SPDX-License-Identifier: Apache-2.0
"""
Use the operating system.

``small_files``: read an operator's file without blocking. ``account``: run models' code as another user, protect the
server's memory. ``descendants``: find and kill the processes that a worker has started. ``prctl``: attributes of
Linux processes. ``heap``: return free memory to the system. ``garbage``: keep garbage collections short.
"""
