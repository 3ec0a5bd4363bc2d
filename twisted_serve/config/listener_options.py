# SPDX-License-Identifier: Apache-2.0
"""
Define the settings of listeners and their connections.
"""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from twisted_serve.config.addresses import (
    INFERENCE_PORTS,
    MANAGEMENT_PORTS,
    METRICS_PORTS,
    Address,
    parse_address,
    same_listener,
)
from twisted_serve.config.grpc_addresses import grpc_address, grpc_host, grpc_port
from twisted_serve.config.setting import about, mode, naming_errors, seconds, word
from twisted_serve.config.values import (
    ConfigError,
    at_least,
    auto_or,
    between,
    one_of,
    optional_path,
    optional_text,
    optional_whole,
    real,
    truth,
    truth_or_oip,
    whole,
    whole_or_auto,
)


def _inference(value: str | Address) -> Address:
    return value if isinstance(value, Address) else parse_address(value, INFERENCE_PORTS)


def _management(value: str | Address) -> Address:
    return value if isinstance(value, Address) else parse_address(value, MANAGEMENT_PORTS)


def _metrics(value: str | Address) -> Address:
    return value if isinstance(value, Address) else parse_address(value, METRICS_PORTS)


# More have nothing to do: one process decides for all of them.
_MOST_FRONTS = 64

#: The default host of gRPC.
DEFAULT_HOST = "127.0.0.1"


@frozen(field_transformer=naming_errors)
class ListenerOptions:
    """
    The settings of listeners, as a part of `ServerOptions`.

    :raise ConfigError: for an invalid value, naming it and its setting.
    """

    # Listeners.
    inference_address: Address = field(
        default=Address("http", "127.0.0.1", 8080),
        converter=_inference,
        metadata=about("where the inference API listens; this and the next two may be endpoints: deployment.md"),
    )
    management_address: Address = field(
        default=Address("http", "127.0.0.1", 8081),
        converter=_management,
        metadata=about("where the management API listens"),
    )
    metrics_address: Address = field(
        default=Address("http", "127.0.0.1", 8082), converter=_metrics, metadata=about("where the metrics API listens")
    )
    enable_metrics_api: bool = field(default=True, converter=truth, metadata=about("serve /metrics"))
    keystore: Path | None = field(
        default=None, converter=optional_path, metadata=about("a key store; its first key is used for https")
    )
    keystore_pass: str = field(default="changeit", repr=False, metadata=about("the password of keystore"))
    keystore_type: str = field(
        default="PKCS12", metadata=about("the type of keystore; a PKCS12 file is read regardless of this setting")
    )
    certificate_file: Path | None = field(
        default=None, converter=optional_path, metadata=about("the certificate chain for https, PEM")
    )
    private_key_file: Path | None = field(
        default=None, converter=optional_path, metadata=about("the key of certificate_file, PEM")
    )
    client_ca_file: Path | None = field(
        default=None,
        converter=optional_path,
        metadata=about("the authorities of the clients that https listeners trust, PEM"),
    )
    client_certificate: str = field(
        default="none",
        converter=mode,
        validator=one_of(("none", "optional", "required")),
        metadata=about("whether clients of https listeners show a certificate: none, optional or required"),
    )
    cors_allowed_origin: str | None = field(
        default=None, converter=optional_text, metadata=about("Access-Control-Allow-Origin of every answer")
    )
    cors_allowed_methods: str | None = field(
        default=None, converter=optional_text, metadata=about("Access-Control-Allow-Methods of every answer")
    )
    cors_allowed_headers: str | None = field(
        default=None, converter=optional_text, metadata=about("Access-Control-Allow-Headers of every answer")
    )

    ts_open_inference_protocol: bool = field(
        default=False,
        converter=truth_or_oip,
        metadata=about(
            "serve the extras of the Open Inference Protocol: true or oip", env=("TS_OPEN_INFERENCE_PROTOCOL",)
        ),
    )

    front_processes: int | str = field(
        default=0,
        converter=whole_or_auto,
        validator=auto_or(between(0, _MOST_FRONTS)),
        metadata=about(
            "how many processes read and write the connections of clients; 0: the server's own alone; auto: one for "
            "every two processors, from four processors on"
        ),
    )
    fast_lane: bool = field(
        default=True,
        converter=truth,
        metadata=about("pass usual predictions from the socket to the queue at once; the answers are the same without"),
    )

    # gRPC.
    enable_grpc: str = field(
        default="auto",
        converter=word,
        validator=one_of(("auto", "true", "false")),
        metadata=about(
            "serve gRPC: true, false, or auto: with the extra grpc, and at default ports only if they are free"
        ),
    )
    grpc_inference_address: str = field(
        default=DEFAULT_HOST,
        converter=grpc_host,
        metadata=about("where the inference API of gRPC listens: a host, unix:/path, or an endpoint"),
    )
    grpc_inference_port: int | None = field(
        default=None,
        converter=optional_whole,
        validator=between(0, 65535),
        metadata=about("its port; if not set, 7070, or any free one if inference_address has port 0"),
    )
    grpc_management_address: str = field(
        default=DEFAULT_HOST,
        converter=grpc_host,
        metadata=about("where the management API of gRPC listens"),
    )
    grpc_management_port: int | None = field(
        default=None,
        converter=optional_whole,
        validator=between(0, 65535),
        metadata=about("its port; if not set, 7071, or any free one if management_address has port 0"),
    )
    enable_grpc_ssl: bool = field(
        default=False,
        converter=truth,
        metadata=about("use TLS for gRPC, with the certificate of https and its rules for clients"),
    )
    grpc_inference_max_connection_age_ms: int | None = field(
        default=None,
        converter=optional_whole,
        validator=at_least(1),
        metadata=about("milliseconds after which clients of the inference API must connect again; never if not set"),
    )
    grpc_inference_max_connection_age_grace_ms: int | None = field(
        default=None,
        converter=optional_whole,
        validator=at_least(1),
        metadata=about("milliseconds that the calls of such a connection have then; no limit if not set"),
    )
    grpc_management_max_connection_age_ms: int | None = field(
        default=None,
        converter=optional_whole,
        validator=at_least(1),
        metadata=about("the same age for clients of the management API"),
    )
    grpc_management_max_connection_age_grace_ms: int | None = field(
        default=None,
        converter=optional_whole,
        validator=at_least(1),
        metadata=about("and the same time for their calls"),
    )
    grpc_reflection: bool = field(
        default=False,
        converter=truth,
        metadata=about("let clients of gRPC ask for the services and their messages, with the key of the listener"),
    )

    # Limits of a connection.
    max_connections: int = field(
        default=0,
        converter=whole,
        validator=at_least(0),
        metadata=about(
            "connections of all listeners together, at most the limit of open files less a reserve; 0 for that"
        ),
    )
    max_request_size: int = field(
        default=6553500, converter=whole, validator=at_least(0), metadata=about("bytes of a request's body")
    )
    max_response_size: int = field(
        default=6553500, converter=whole, validator=at_least(0), metadata=about("bytes of a worker's answer")
    )
    max_header_size: int = field(
        default=16384, converter=whole, validator=at_least(8192), metadata=about("bytes of all headers of a request")
    )
    header_timeout: float = field(
        default=30.0, converter=real, validator=seconds, metadata=about("seconds for a request's headers to arrive")
    )
    body_timeout: float = field(
        default=300.0, converter=real, validator=seconds, metadata=about("seconds for a whole body to arrive")
    )
    keepalive_timeout: float = field(
        default=75.0, converter=real, validator=seconds, metadata=about("seconds that an idle connection is kept")
    )

    def __attrs_post_init__(self) -> None:
        """Refuse combinations of settings that are valid only separately."""
        if self.secure and (self.certificate_file is None) != (self.private_key_file is None):
            raise ConfigError("certificate_file and private_key_file need each other; only one is set")
        if (self.client_certificate == "none") != (self.client_ca_file is None):
            raise ConfigError("client_certificate and client_ca_file need each other; only one is set")
        listeners = self.http_listeners
        for at, (key, address) in enumerate(listeners):
            for other_key, other in listeners[:at]:
                if same_listener(address, other) and address.scheme != other.scheme:
                    raise ConfigError(f"{other_key} {other} and {key} {address} share a port; only one is https")

    @property
    def secure(self) -> bool:
        """Whether any listener uses TLS."""
        return any(address.secure for _key, address in (*self.http_listeners, *self.grpc_listeners))

    @property
    def http_listeners(self) -> list[tuple[str, Address]]:
        """The addresses of the HTTP listeners, by their settings."""
        listeners = [("inference_address", self.inference_address), ("management_address", self.management_address)]
        if self.enable_metrics_api:
            listeners.append(("metrics_address", self.metrics_address))
        return listeners

    @property
    def grpc_listeners(self) -> list[tuple[str, Address]]:
        """The addresses of the listeners of gRPC, by their settings; none if gRPC is off."""
        if self.enable_grpc == "false":
            return []
        secure = self.enable_grpc_ssl
        inference = grpc_port(self.grpc_inference_port, self.inference_address, 7070)
        management = grpc_port(self.grpc_management_port, self.management_address, 7071)
        return [
            ("grpc_inference_address", grpc_address(self.grpc_inference_address, inference, secure)),
            ("grpc_management_address", grpc_address(self.grpc_management_address, management, secure)),
        ]
