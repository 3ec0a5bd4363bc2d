# SPDX-License-Identifier: Apache-2.0
"""
Transform Pillow images to input tensors, with torchvision if it is installed and without it otherwise.

Both give the same numbers: Pillow resizes in both cases, and sizes and offsets
are rounded the same way (``tests/handlers/test_image_transforms.py``).
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field, frozen

from twisted_serve.handlers.exceptions import PredictionException

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["IMAGENET", "CenterCrop", "Compose", "Normalize", "Resize", "ToRGB", "ToTensor", "WithinLimit"]

_log = logging.getLogger(__name__)


@frozen
class ToRGB:
    """Convert an image of any mode (grey, palette, with alpha channel) to RGB."""

    def __call__(self, image: Image) -> Image:
        """Return the image in RGB."""
        return image if image.mode == "RGB" else image.convert("RGB")


@frozen
class WithinLimit:
    """
    Refuse an image so narrow that it would be huge once its shorter side is scaled to ``size`` pixels.

    Pillow's own limit (``limit_max_image_pixels``) applies only to the size given in the file.
    """

    size: int

    def __call__(self, image: Image) -> Image:
        """
        Return the image unchanged.

        :raise PredictionException: 400, if the scaled image would exceed Pillow's limit.
        """
        from PIL import Image as images  # noqa: N813, PLC0415

        width, height = image.size
        limit = images.MAX_IMAGE_PIXELS
        if limit is not None and self.size**2 * max(width, height) > 2 * limit * min(width, height):
            raise PredictionException(f"an image of {width} x {height} pixels is too narrow to be scaled", 400)
        return image


@frozen
class Resize:
    """Scale an image so that its shorter side has ``size`` pixels: bilinear, with antialiasing."""

    size: int

    def __call__(self, image: Image) -> Image:
        """Return the scaled image."""
        from PIL.Image import Resampling  # noqa: PLC0415

        shorter = min(image.size)
        # The length of the longer side is truncated, not rounded, as in torchvision.
        width, height = (int(self.size * side / shorter) for side in image.size)
        return image if (width, height) == image.size else image.resize((width, height), Resampling.BILINEAR)


@frozen
class CenterCrop:
    """Crop the central square with sides of ``size`` pixels; pad a smaller image with black."""

    size: int

    def __call__(self, image: Image) -> Image:
        """Return the square."""
        width, height = image.size
        if width < self.size or height < self.size:
            image = self._bordered(image)
            width, height = image.size
        # Half a pixel is rounded to the even neighbour, as in torchvision.
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))

    def _bordered(self, image: Image) -> Image:
        from PIL import ImageOps  # noqa: PLC0415

        across, down = (max(self.size - side, 0) for side in image.size)
        return ImageOps.expand(image, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2))


@frozen
class ToTensor:
    """
    Convert an image to a tensor of shape (C, H, W).

    8-bit and 1-bit images become torch's default dtype (float32), with values from 0 to 1. Mode ``I;16`` becomes
    int16 and other modes keep their dtype, both with their values unchanged.
    """

    def __call__(self, image: Image) -> torch.Tensor:
        """Return the tensor."""
        import numpy as np  # noqa: PLC0415
        import torch  # noqa: PLC0415

        # Torch supports few operations on unsigned 16-bit integers.
        pixels = np.array(image, dtype=np.int16 if image.mode == "I;16" else None, copy=True)
        tensor = torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1).contiguous()
        if tensor.dtype is torch.bool:
            return tensor.to(torch.get_default_dtype())
        return tensor.to(torch.get_default_dtype()).div(255) if tensor.dtype is torch.uint8 else tensor


@frozen
class Normalize:
    """Subtract the ``mean`` of each channel and divide by its ``std``."""

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the normalized tensor, of the same shape (C, H, W)."""
        mean, std = (tensor.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (tensor - mean) / std


@define(eq=False)
class Compose:
    """
    A sequence of transforms.

    :ivar transforms: Transforms of this module, or any callables.
    """

    transforms: Sequence[Callable[[Any], Any]]
    _steps: Sequence[Callable[[Any], Any]] | None = field(default=None, init=False, repr=False)

    def __call__(self, image: Any) -> Any:
        """Apply all transforms; the first call looks for torchvision."""
        if self._steps is None:
            self._steps = _preferred(self.transforms)
        for step in self._steps:
            image = step(image)
        return image


def _preferred(transforms: Sequence[Callable[[Any], Any]]) -> Sequence[Callable[[Any], Any]]:
    """Replace our transforms by torchvision's of the same name, if it is installed."""
    if importlib.util.find_spec("torchvision") is None:
        return transforms
    try:
        theirs = importlib.import_module("torchvision.transforms")
    # A torchvision built for another version of torch fails in many ways.
    except Exception:
        _log.warning("torchvision cannot be imported; images are transformed without it", exc_info=True)
        return transforms
    return [
        getattr(theirs, type(each).__name__)(**asdict(each))
        if isinstance(each, (Resize, CenterCrop, ToTensor, Normalize))
        else each
        for each in transforms
    ]


#: RGB image of any size to the input of models trained on ImageNet: float32, shape (3, 224, 224), normalized.
IMAGENET = Compose(
    [
        ToRGB(),
        WithinLimit(256),
        Resize(256),
        CenterCrop(224),
        ToTensor(),
        Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ]
)
