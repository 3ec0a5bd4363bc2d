# SPDX-License-Identifier: Apache-2.0
"""
What the server and its other processes agree on: ``messages`` and ``control`` (values), ``codec`` (their bytes).

Both sides import this package and nothing of each other.
"""
