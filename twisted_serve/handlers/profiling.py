# SPDX-License-Identifier: Apache-2.0
"""
Profile a batch with torch's profiler, if ``ENABLE_TORCH_PROFILER`` is set in the environment.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["is_profiling", "profiled"]

_log = logging.getLogger(__name__)

# Rows of the table in the log.
_ROWS = 10


def is_profiling() -> bool:
    """Return whether ``ENABLE_TORCH_PROFILER`` is set, to any value."""
    return "ENABLE_TORCH_PROFILER" in os.environ


def profiled(call: Callable[[], Any], model_name: str, profiler_args: dict[str, Any]) -> tuple[Any, Any]:
    """
    Profile ``call``: log the slowest operations, and write a trace for TensorBoard to a directory of the model.

    :param model_name: The name of the directory, below ``pytorch_profiler`` in the directory for temporary files.
    :param profiler_args: Arguments of ``torch.profiler.profile``; if empty, the defaults are filled in.
    :return: The result of ``call``, and the profile.
    """
    from torch.profiler import ProfilerActivity, profile, tensorboard_trace_handler  # noqa: PLC0415

    if not profiler_args:
        directory = Path(tempfile.gettempdir(), "pytorch_profiler", Path(model_name).name)
        # Traces contain the shapes of inputs: only this user may read them.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        profiler_args.update(
            activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA],
            record_shapes=True,
            on_trace_ready=tensorboard_trace_handler(str(directory)),
        )
    with profile(**profiler_args) as profile_:
        output = call()
    _log.info("%s", profile_.key_averages().table(sort_by="cpu_time_total", row_limit=_ROWS))
    return output, profile_
