# SPDX-License-Identifier: Apache-2.0
"""
Decode images to a tensor, and explain predictions: the base of the built-in image handlers.

Pillow decodes images; torchvision and Captum are optional and imported on first use
(``docs/torchserve/archives_workers_handlers.md`` §7.10).
"""

from __future__ import annotations

import io
from functools import cached_property
from typing import TYPE_CHECKING, Any

from twisted_serve.handlers.base import BaseHandler
from twisted_serve.handlers.captum import captum_attr
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.packages import needed
from twisted_serve.handlers.rows import decoded_base64, input_of
from twisted_serve.handlers.timer import timed

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["VisionHandler"]

# Steps of the integral: enough for a useful explanation, few enough to be fast.
_STEPS = 15


class VisionHandler(BaseHandler):
    """
    Base class of handlers for image models; a subclass sets ``image_processing``.

    :ivar image_processing: A callable that converts a Pillow image to a float tensor of shape (3, H, W).
    """

    image_processing: Any = None

    @cached_property
    def ig(self) -> Any:
        """Captum's ``IntegratedGradients`` for the model."""
        return captum_attr().IntegratedGradients(self.model)

    def initialize(self, context: Any) -> None:
        """
        Load the model; accept images of any size if ``limit_max_image_pixels`` is off.

        :raise RuntimeError: if the archive has no model that can be loaded.
        :raise ImportError: if Pillow, NumPy or a package that the model needs is not installed.
        """
        for module in ("PIL.Image", "numpy"):
            needed(module, type(self).__name__)
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels", True):
            from PIL import Image  # noqa: PLC0415

            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: Any) -> Any:
        """
        Decode the images of a batch and stack them to one tensor.

        :param data: N rows whose input is an encoded image (bytes, or a string in Base64), which ``image_processing``
            converts, or nested lists of numbers, which are used as they are.
        :return: A float32 tensor on ``device``, of shape (N, 3, H, W) for images.
        :raise PredictionException: 400, for any other input, or an image that cannot be decoded.
        """
        import torch  # noqa: PLC0415

        return torch.stack([self._tensor(input_of(row)) for row in data]).to(self.device)

    def _tensor(self, value: Any) -> Any:
        import torch  # noqa: PLC0415

        if value is None:
            raise PredictionException("the request has neither data nor body", 400)
        if isinstance(value, str):
            try:
                value = decoded_base64(value)
            except ValueError as e:
                raise PredictionException("the input is a string, but not an image in Base64", 400) from e
        if isinstance(value, (bytes, bytearray)):
            return self.image_processing(_image(value))
        try:
            return torch.FloatTensor(value)
        except (TypeError, ValueError) as e:
            raise PredictionException("the input is neither an image nor an array of numbers", 400) from e

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any = 0) -> Any:
        """
        Attribute the score of the class ``target`` to the values of the input, with integrated gradients.

        :param tensor_data: The result of ``preprocess``, a float tensor of shape (N, 3, H, W).
        :return: Nested lists of the same shape.
        :raise PredictionException: 501, if Captum is not installed.
        """
        return self.ig.attribute(tensor_data, target=target, n_steps=_STEPS).tolist()


def _image(encoded: bytes | bytearray) -> Image:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        image = Image.open(io.BytesIO(encoded))
        # Pillow decodes lazily: a truncated or too large image is detected here.
        image.load()
    except Image.DecompressionBombError as e:
        raise PredictionException(f"the image has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels", 400) from e
    except UnidentifiedImageError as e:
        raise PredictionException("the input is no image that Pillow knows", 400) from e
    # Pillow's decoders raise any of these for damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, KeyError) as e:
        raise PredictionException(f"the image cannot be read: {e}", 400) from e
    return image
