# SPDX-License-Identifier: Apache-2.0
"""
What the server and a worker process agree on: ``messages`` (values) and ``codec`` (their bytes).

Both sides import this package and nothing of each other.
"""
