# SPDX-License-Identifier: Apache-2.0
"""
Metrics and traces: our own, and TorchServe's in its three modes.

``registry``       the metrics of one server, rendered for Prometheus
``model_metrics``  the metrics of one model version, recorded through ``observer``
``observer``       the observer interface for events of a worker pool
``families``       counters and histograms that are cheap enough for every request
``key_requests``   counters by named key
``pools``          queue and worker gauges, read at each scrape
``timing``         the timestamps of one prediction
``spans``          the spans and attributes of a finished prediction
``tracing``        export them to OpenTelemetry
``system``         CPU, memory, disk and GPU metrics of the machine
``torchserve``     TorchServe's metrics in its three modes: definitions, log lines, text format
"""
