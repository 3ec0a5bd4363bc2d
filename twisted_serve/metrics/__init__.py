# SPDX-License-Identifier: Apache-2.0
"""
Metrics and traces: our own, and TorchServe's in its three modes.

``registry``   the metrics of one server, rendered for Prometheus
``version``    the metrics of one model version, recorded through ``observer``
``observer``   the observer interface for events of a worker pool
``tallies``    counters and histograms that are cheap enough for every request
``pools``      queue and worker gauges, read at each scrape
``timing``     the timestamps of one prediction
``stages``     the spans and attributes of a finished prediction
``tracing``    export them to OpenTelemetry
``catalogue``  ``metrics.yaml``: the definitions of TorchServe's metrics
``emitter``    TorchServe's metrics in its three modes; ``recorders`` records one metric
``lines``      metrics as text; ``log`` coalesces such lines for the log
``text``       Prometheus' text format as TorchServe renders it
``system``     CPU, memory, disk and GPU metrics of the machine
``seconds``    the current second, cached
"""
