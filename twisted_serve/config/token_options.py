# SPDX-License-Identifier: Apache-2.0
"""
Define the settings of keys.
"""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from twisted_serve.config.listener_options import ListenerOptions
from twisted_serve.config.setting import MAX_SECONDS, MIN_SECONDS, about, naming_errors, word
from twisted_serve.config.values import a_path, between, one_of, optional_path, positive, real, truth, whole

# The expiry of a key must be a valid date: these minutes are 7600 years.
MAX_TOKEN_MINUTES = 4e9
MIN_TOKEN_MINUTES = MIN_SECONDS / 60


@frozen(field_transformer=naming_errors)
class TokenOptions(ListenerOptions):
    """
    The settings of listeners and of keys, as a part of `ServerOptions`.

    :raise ConfigError: for an invalid value, naming it and its setting.
    """

    disable_token_authorization: bool = field(
        default=False, converter=truth, metadata=about("accept every request, without a key")
    )
    token_expiration_min: float = field(
        default=60.0,
        converter=real,
        validator=positive(MIN_TOKEN_MINUTES, MAX_TOKEN_MINUTES),
        metadata=about(
            "minutes until a management or inference key expires",
            env=("TS_TOKEN_EXPIRATION_TIME_MIN", "TS_TOKEN_EXPIRATION_MIN"),
        ),
    )
    token_key_file: Path = field(
        default=Path("key_file.json"), converter=a_path, metadata=about("the file which the keys are written to")
    )
    token_store: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=about("the file of the keys with names, which are made at /keys: tokens.md"),
    )
    token_refusal_status: int = field(
        default=400,
        converter=whole,
        validator=one_of((400, 401)),
        metadata=about("the status of a refusal: 400 as in TorchServe, 401 as in RFC 6750"),
    )
    token_exempt_ping: bool = field(default=False, converter=truth, metadata=about("let /ping answer without a key"))
    token_auto_rotate: bool = field(
        default=False,
        converter=truth,
        metadata=about("replace keys as soon as they have expired, or before that by token_overlap_sec"),
    )
    token_management_key_file: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=about("a file with the management key, which then does not expire; it is read again when it changes"),
    )
    token_inference_key_file: Path | None = field(
        default=None, converter=optional_path, metadata=about("the same with the inference key")
    )
    token_api_key_file: Path | None = field(
        default=None, converter=optional_path, metadata=about("the same with the API key")
    )
    token_on_restart: str = field(
        default="new",
        converter=word,
        validator=one_of(("new", "keep")),
        metadata=about("what a start does with the keys of the last run: new makes others, keep goes on with them"),
    )
    token_overlap_sec: float = field(
        default=0.0,
        converter=real,
        validator=between(0, MAX_SECONDS),
        metadata=about("seconds that a replaced key is still accepted, unless it expires sooner"),
    )
    token_warning_min: float = field(
        default=5.0,
        converter=real,
        validator=between(0, MAX_TOKEN_MINUTES),
        metadata=about("minutes before a key expires at which the log warns, and observers are told"),
    )
    metrics_token_file: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=about("a file with the bearer token that /metrics requires; it is read for each request"),
    )
