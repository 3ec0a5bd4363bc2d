# SPDX-License-Identifier: Apache-2.0
"""
Load models exported by ``torch.export`` or compiled ahead of time by AOTInductor.

Such a file contains code, like the archive's handler; no setting makes it safe to load from an untrusted source.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

__all__ = ["exported_model", "shared_library_model"]

# The directory of compiled code in a package of ``torch._inductor.aoti_compile_and_package``.
_COMPILED = "data/aotinductor/"


def exported_model(path: str, device: Any) -> Any:
    """
    Load a ``.pt2`` file of ``torch.export`` or AOTInductor.

    :raise RuntimeError: if the file is neither.
    """
    import torch  # noqa: PLC0415

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as e:
        raise RuntimeError(f"{Path(path).name} is no file of torch.export or AOTInductor: {e}") from e
    if not any(_COMPILED in each for each in names):
        # An exported program contains its device: it runs on the device that it was exported on.
        return torch.export.load(path).module()
    from torch._inductor import aoti_load_package  # noqa: PLC0415

    return aoti_load_package(path, device_index=-1 if device.index is None else device.index)


def shared_library_model(path: str, device: Any) -> Any:
    """Load a ``.so`` file of ``torch._export.aot_compile``, the format before AOTInductor packages."""
    import torch  # noqa: PLC0415
    from torch._export import aot_load  # noqa: PLC0415

    if device.type == "cuda":
        torch.cuda.set_device(device)
    return aot_load(path, str(device))
