# SPDX-License-Identifier: Apache-2.0
"""
What is counted.

``registry``   the metrics of one server, and how they are shown
``version``    those of one model version; ``observer`` is how its pool tells them
``pools``      queues and workers, read when somebody asks
``timing``     the moments of one prediction
``catalogue``  ``metrics.yaml``: which of the predecessor's metrics there are
``emitter``    the predecessor's metrics, in its three modes; ``recorders`` says where one goes
``lines``      metrics as text; ``log`` brings them into the log
``text``       Prometheus' format as the predecessor wrote it
``system``     the machine's processors, memory, disk and GPUs
"""
