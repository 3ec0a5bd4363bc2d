# SPDX-License-Identifier: Apache-2.0
"""
Count and print metrics as TorchServe does.

``definitions``: ``metrics.yaml``. ``emitter``, ``recorders``: the three modes. ``lines``: a metric as a log line,
which ``log`` writes, with the seconds of ``epoch``. ``text``: Prometheus' text format as TorchServe prints it.
"""
