# SPDX-License-Identifier: Apache-2.0
"""
This module implements models that are programs: of ``torch.export``, and compiled ahead of time by AOTInductor.

Such a file is code, like the archive's handler; no setting makes it harmless.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

__all__ = ["exported_model", "shared_library_model"]

# Where ``torch._inductor.aoti_compile_and_package`` puts what it compiled.
_COMPILED = "data/aotinductor/"


def exported_model(path: str, device: Any) -> Any:
    """
    Load a ``.pt2`` file, of either kind.

    :raise RuntimeError: if it is of neither.
    """
    import torch  # noqa: PLC0415

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as e:
        raise RuntimeError(f"{Path(path).name} is no file of torch.export or AOTInductor: {e}") from e
    if not any(_COMPILED in each for each in names):
        # What it was exported on must be what it runs on: a program's device is part of it.
        return torch.export.load(path).module()
    from torch._inductor import aoti_load_package  # noqa: PLC0415

    return aoti_load_package(path, device_index=-1 if device.index is None else device.index)


def shared_library_model(path: str, device: Any) -> Any:
    """Load a ``.so`` file, as ``torch._export.aot_compile`` made them before there were packages."""
    import torch  # noqa: PLC0415
    from torch._export import aot_load  # noqa: PLC0415

    if device.type == "cuda":
        torch.cuda.set_device(device)
    return aot_load(path, str(device))
