# SPDX-License-Identifier: Apache-2.0
"""
Provide the names of TorchServe's package ``model_archiver``, for scripts that build archives.
"""

from __future__ import annotations

import logging
import sys

from twisted_serve.archiver.command import main
from twisted_serve.archiver.config import ArchiverError as ModelArchiverError
from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.archiver.packing import pack

__all__ = ["ModelArchiver", "ModelArchiverConfig", "ModelArchiverError", "generate_model_archive"]


class ModelArchiver:
    """Makes model archives."""

    @staticmethod
    def generate_model_archive(config: ModelArchiverConfig) -> None:
        """
        Make an archive.

        :raise ModelArchiverError: if it cannot be made.
        """
        pack(config, warn=logging.getLogger(__name__).warning)


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """
    Make an archive; without a ``config``, run the command line tool and exit.

    :raise ModelArchiverError: if it cannot be made.
    """
    if config is None:
        sys.exit(main())
    ModelArchiver.generate_model_archive(config)
