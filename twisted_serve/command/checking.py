# SPDX-License-Identifier: Apache-2.0
"""
Check what a server reads at its start besides its settings, without starting one.
"""

from __future__ import annotations

from twisted_serve.config.load import LoadedOptions
from twisted_serve.config.presence import unreadable
from twisted_serve.config.values import ConfigError


def check_read_at_start(loaded: LoadedOptions) -> None:
    """
    Check ``models``, ``model_snapshot``, and the ``metrics_config`` and ``log_config`` that this machine has.

    :raise ConfigError: for an error in one of them.
    """
    # Imported here, so that the start of a server does not wait for these modules.
    from twisted_serve.logs.configuration import read_log_configuration  # noqa: PLC0415
    from twisted_serve.metrics.torchserve.definitions import read_catalogue  # noqa: PLC0415
    from twisted_serve.models.settings import check_all_configured  # noqa: PLC0415
    from twisted_serve.models.snapshot import read as read_snapshot  # noqa: PLC0415

    try:
        check_all_configured(loaded.options.models)
        read_snapshot(loaded.options.model_snapshot or {})
    except ValueError as e:
        raise ConfigError(str(e)) from e
    metrics_config, log_config = loaded.options.metrics_config, loaded.options.log_config
    if metrics_config is not None and unreadable(metrics_config) is None:
        read_catalogue(metrics_config)
    if log_config is not None and unreadable(log_config) is None:
        read_log_configuration(log_config)
