# SPDX-License-Identifier: Apache-2.0
"""
This module implements what the built-in image handlers share: from requests to a tensor, and explanations.

Pillow decodes; neither torchvision nor Captum is needed until something asks for it
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

# Enough for an explanation one can look at, little enough to be waited for.
_STEPS = 15


class VisionHandler(BaseHandler):
    """
    A model of images; a subclass says with ``image_processing`` how one becomes its input.

    :ivar image_processing: Anything that makes a tensor of a Pillow image.
    """

    image_processing: Any = None

    @cached_property
    def ig(self) -> Any:
        """Captum's integrated gradients of the model."""
        return captum_attr().IntegratedGradients(self.model)

    def initialize(self, context: Any) -> None:
        """
        Load the model; let images of any size in if ``limit_max_image_pixels`` is off.

        :raise RuntimeError: if there is no model in the archive that can be loaded.
        :raise ImportError: if Pillow, or what it needs besides, is not installed.
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
        Make one tensor of a batch: of encoded images, of these in Base64, or of nested lists of numbers.

        :raise PredictionException: 400, for an input that is none of these.
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
        Say how much each value of the input contributed to the class ``target``.

        :raise PredictionException: 501, if Captum is not installed.
        """
        return self.ig.attribute(tensor_data, target=target, n_steps=_STEPS).tolist()


def _image(encoded: bytes | bytearray) -> Image:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        image = Image.open(io.BytesIO(encoded))
        # Pillow reads on demand: what is cut off or too large is found out here.
        image.load()
    except Image.DecompressionBombError as e:
        raise PredictionException(f"the image has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels", 400) from e
    except UnidentifiedImageError as e:
        raise PredictionException("the input is no image that Pillow knows", 400) from e
    # Decoders of damaged files raise what they happen to come across.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, KeyError) as e:
        raise PredictionException(f"the image cannot be read: {e}", 400) from e
    return image
