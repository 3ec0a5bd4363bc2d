# SPDX-License-Identifier: Apache-2.0
"""
This module implements the transforms of the built-in image handlers: from a Pillow image to a model's input.

Where torchvision is installed its transforms are used.  Where it is not, these
give the same numbers: Pillow resizes for both, and sizes and offsets are
rounded alike (``tests/handlers/test_image_transforms.py``).
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
    """Give an image three channels, whatever it has: grey, a palette, transparency."""

    def __call__(self, image: Image) -> Image:
        """Convert the image, if it is no RGB yet."""
        return image if image.mode == "RGB" else image.convert("RGB")


@frozen
class WithinLimit:
    """
    Refuse an image so narrow that it would be huge when its shorter side has ``size`` pixels.

    Pillow's own limit (``limit_max_image_pixels``) is for what the file says.
    """

    size: int

    def __call__(self, image: Image) -> Image:
        """
        Let the image pass.

        :raise PredictionException: 400, if it must not.
        """
        from PIL import Image as images  # noqa: N813, PLC0415

        width, height = image.size
        limit = images.MAX_IMAGE_PIXELS
        if limit is not None and self.size**2 * max(width, height) > 2 * limit * min(width, height):
            raise PredictionException(f"an image of {width} x {height} pixels is too narrow to be scaled", 400)
        return image


@frozen
class Resize:
    """Scale an image so that its shorter side has ``size`` pixels, bilinearly and without aliasing."""

    size: int

    def __call__(self, image: Image) -> Image:
        """Scale the image."""
        from PIL.Image import Resampling  # noqa: PLC0415

        shorter = min(image.size)
        # The longer side is cut off, not rounded.
        width, height = (int(self.size * side / shorter) for side in image.size)
        return image if (width, height) == image.size else image.resize((width, height), Resampling.BILINEAR)


@frozen
class CenterCrop:
    """Cut a square of ``size`` pixels out of an image's middle; what is smaller gets a black border."""

    size: int

    def __call__(self, image: Image) -> Image:
        """Cut the image."""
        width, height = image.size
        if width < self.size or height < self.size:
            image = self._bordered(image)
            width, height = image.size
        # Half a pixel goes to the even neighbour.
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))

    def _bordered(self, image: Image) -> Image:
        from PIL import ImageOps  # noqa: PLC0415

        across, down = (max(self.size - side, 0) for side in image.size)
        return ImageOps.expand(image, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2))


@frozen
class ToTensor:
    """Make a tensor, channels first, of an image; bytes become numbers from 0 to 1."""

    def __call__(self, image: Image) -> torch.Tensor:
        """Make the tensor."""
        import numpy as np  # noqa: PLC0415
        import torch  # noqa: PLC0415

        # Torch can hardly calculate with unsigned 16 bit integers.
        pixels = np.array(image, dtype=np.int16 if image.mode == "I;16" else None, copy=True)
        tensor = torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1).contiguous()
        if tensor.dtype is torch.bool:
            return tensor.to(torch.get_default_dtype())
        return tensor.to(torch.get_default_dtype()).div(255) if tensor.dtype is torch.uint8 else tensor


@frozen
class Normalize:
    """Subtract each channel's ``mean``, and divide by its ``std``."""

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Normalize the tensor."""
        mean, std = (tensor.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (tensor - mean) / std


@define(eq=False)
class Compose:
    """
    Transforms, one after the other.

    :ivar transforms: Those of this module, or anything that can be called.
    """

    transforms: Sequence[Callable[[Any], Any]]
    _steps: Sequence[Callable[[Any], Any]] | None = field(default=None, init=False, repr=False)

    def __call__(self, image: Any) -> Any:
        """Apply all of them; which torchvision there is, is seen when the first image comes."""
        if self._steps is None:
            self._steps = _preferred(self.transforms)
        for step in self._steps:
            image = step(image)
        return image


def _preferred(transforms: Sequence[Callable[[Any], Any]]) -> Sequence[Callable[[Any], Any]]:
    """Replace ours by torchvision's of the same name, if it is installed."""
    if importlib.util.find_spec("torchvision") is None:
        return transforms
    try:
        theirs = importlib.import_module("torchvision.transforms")
    # One made for another torch than ours fails in many ways.
    except Exception:
        _log.warning("torchvision cannot be imported; images are transformed without it", exc_info=True)
        return transforms
    return [
        getattr(theirs, type(each).__name__)(**asdict(each))
        if isinstance(each, (Resize, CenterCrop, ToTensor, Normalize))
        else each
        for each in transforms
    ]


#: What models trained on ImageNet expect.
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
