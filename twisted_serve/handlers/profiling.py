# SPDX-License-Identifier: Apache-2.0
"""
This module implements torch's profiler around a batch: ``ENABLE_TORCH_PROFILER`` in the environment asks for it.
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

# As many rows of the table as one reads.
_ROWS = 10


def is_profiling() -> bool:
    """Whether batches are to be profiled; any value says so."""
    return "ENABLE_TORCH_PROFILER" in os.environ


def profiled(call: Callable[[], Any], model_name: str, profiler_args: dict[str, Any]) -> tuple[Any, Any]:
    """
    Profile ``call``: the longest steps go to the model log, a trace for TensorBoard to a directory of the model.

    :param model_name: Names the directory, below ``pytorch_profiler`` among the temporary files.
    :param profiler_args: Arguments of ``torch.profiler.profile``, for others than the usual ones; filled if empty.
    :return: What it returned, and the profile.
    """
    from torch.profiler import ProfilerActivity, profile, tensorboard_trace_handler  # noqa: PLC0415

    if not profiler_args:
        directory = Path(tempfile.gettempdir(), "pytorch_profiler", Path(model_name).name)
        # Traces tell of inputs' shapes: nobody else's business.
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
