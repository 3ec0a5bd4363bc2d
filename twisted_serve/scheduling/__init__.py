# SPDX-License-Identifier: Apache-2.0
"""
Schedule requests to workers; which workers these are, ``interfaces.IWorkerProvider`` decides.

``pool``: all workers of a model version. ``replica``, ``lifecycle``, ``status``, ``backoff``, ``unstarted``: one
worker through its restarts. ``pending``: one request. ``dispatcher``: from the queue to free workers; ``in_flight``:
the batches that one worker has. ``queues``, ``sequence_headers``: which queue a request waits in. ``retries``,
``quarantine``: requests of failed batches. ``admission``: requests that are refused. ``autoscaling``: how many
workers. ``worker_events``: log lines and counters.
"""
