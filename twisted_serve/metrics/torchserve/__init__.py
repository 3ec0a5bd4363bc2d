# SPDX-License-Identifier: Apache-2.0
"""
Count and print metrics as TorchServe does.

``definitions``: ``metrics.yaml``. ``emitter``, ``recorders``: the three modes. ``lines``: metrics as log lines,
which ``log`` writes. ``text``: Prometheus' text format as TorchServe prints it.
"""
