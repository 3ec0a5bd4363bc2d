# SPDX-License-Identifier: Apache-2.0
"""
List a server's settings for its log at the start, as TorchServe does (``docs/torchserve/config_cli.md`` §12).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import twisted_serve
from twisted_serve.assembly.dependencies import count_gpus
from twisted_serve.config.load import LoadedOptions


def banner(loaded: LoadedOptions, cwd: Path) -> list[str]:
    """Return the lines in TorchServe's order, with ``N/A`` for a setting without a value."""
    return [f"{label}: {'N/A' if value in (None, '', ()) else value}" for label, value in _lines(loaded, cwd)]


def _lines(loaded: LoadedOptions, cwd: Path) -> Iterator[tuple[str, object]]:
    options = loaded.options
    files = (place for place in loaded.sources.values() if place.startswith("/"))
    yield "Torchserve version", twisted_serve.COMPATIBLE_WITH
    yield "TS Home", Path(twisted_serve.__file__).parent
    yield "Current directory", cwd
    yield "Temp directory", options.temp_directory
    yield "Metrics config path", options.metrics_config or "metrics.yaml of the package"
    yield "Number of GPUs", count_gpus(options.number_of_gpu, os.environ)
    yield "Number of CPUs", os.cpu_count()
    yield "Max heap size", None
    yield "Python executable", options.python
    yield "Config file", next(files, None)
    yield "Inference address", options.inference_address
    yield "Management address", options.management_address
    yield "Metrics address", options.metrics_address
    yield "Model Store", options.model_store
    yield "Initial Models", options.load_models
    yield "Log dir", options.log_location if options.log_files else None
    yield "Metrics dir", options.metrics_location if options.log_files else None
    yield "Netty threads", None
    yield "Netty client threads", None
    yield "Default workers per model", options.default_workers_per_model
    yield "Blacklist Regex", options.blacklist_env_vars
    yield "Maximum Response Size", options.max_response_size
    yield "Maximum Request Size", options.max_request_size
    yield "Limit Maximum Image Pixels", str(options.limit_max_image_pixels).lower()
    yield "Prefer direct buffer", None
    yield "Allowed Urls", ",".join(options.allowed_urls)
    yield "Custom python dependency for model allowed", None
    yield "Enable metrics API", str(options.enable_metrics_api).lower()
    yield "Metrics mode", options.metrics_mode
    yield "Disable system metrics", str(options.disable_system_metrics).lower()
    yield "Workflow Store", None
    yield "CPP log config", None
    yield "Model config", ", ".join(options.models) or None
    yield "System metrics command", None
    yield "Model API enabled", str(options.enable_model_api).lower()
