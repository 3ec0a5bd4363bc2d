# SPDX-License-Identifier: Apache-2.0
"""
Provide a context for unit tests of handlers: ``MockContext``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted_serve.handlers.collected_metrics import MetricsStore
from twisted_serve.handlers.model_files import get_yaml_config
from twisted_serve.handlers.weights import cuda_available

__all__ = ["MockContext"]


class MockContext:
    """
    A context whose manifest names the given files, without requests.

    :ivar metrics: The metrics that the handler emits; ``metrics.store`` lists them.
    :ivar explain: If true, ``get_request_header`` returns true for positions after the first.
    """

    def __init__(
        self,
        model_pt_file: str | None = "model.pt",
        model_dir: str | Path = "ts/torch_handler/unit_tests/models/tmp",
        model_file: str | None = "model.py",
        gpu_id: str | None = "0",
        model_name: str | None = "mnist",
        model_yaml_config_file: str | None = None,
    ) -> None:
        files = {"modelName": model_name, "serializedFile": model_pt_file, "modelFile": model_file}
        self.manifest = {"model": {key: value for key, value in files.items() if value}}
        self.system_properties: dict[str, Any] = {"model_dir": str(model_dir)}
        if gpu_id and cuda_available():
            self.system_properties["gpu_id"] = gpu_id
        self.explain = False
        self.metrics = MetricsStore({0: str(uuid4())}, model_name or "")
        self.model_yaml_config: Any = (
            get_yaml_config(Path(model_dir) / model_yaml_config_file) if model_yaml_config_file else {}
        )

    def get_request_header(self, idx: int, exp: str) -> bool:
        """Return whether an explanation is requested (``explain``), for any header name."""
        return bool(idx and self.explain)
