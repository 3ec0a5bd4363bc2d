# SPDX-License-Identifier: Apache-2.0
"""
What is counted.

``registry``   the server's own metrics, on a Prometheus registry of its own
"""
