# SPDX-License-Identifier: Apache-2.0
"""
A client for TorchServe, as its users write one: with stubs that ``grpc_tools.protoc`` has made, and nothing of ours.

Run it with the directory of the stubs in ``PYTHONPATH``.  It prints the answers, and exits with 1 after an error::

    torchserve_client.py infer MODEL FILE
    torchserve_client.py infer_stream MODEL FILE
    torchserve_client.py infer_stream2 MODEL SEQUENCE FILE,FILE
    torchserve_client.py register MODEL URL
    torchserve_client.py unregister MODEL
    torchserve_client.py ping
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

# Modules of the stubs.
import inference_pb2  # type: ignore[import-not-found]
import inference_pb2_grpc  # type: ignore[import-not-found]
import management_pb2  # type: ignore[import-not-found]
import management_pb2_grpc  # type: ignore[import-not-found]
from google.protobuf.empty_pb2 import Empty

# Seconds.
LONG = 120


def metadata_of(token: str | None) -> list[tuple[str, str]]:
    """Return what TorchServe's own client sends with each call, and the key."""
    metadata = [("protocol", "gRPC"), ("session_id", "12345")]
    return metadata if token is None else [*metadata, ("authorization", f"Bearer {token}")]


def request_of(model: str, file: str, sequence: str | None = None) -> Any:
    """Return the request for the content of a file, under the key that all of TorchServe's examples have."""
    inputs = {"data": Path(file).read_bytes()}
    return inference_pb2.PredictionsRequest(model_name=model, input=inputs, sequence_id=sequence)


def text_of(response: Any) -> str:
    """Return a prediction, or the error that is in its place."""
    if response.HasField("status"):
        return f"error {response.status.code}: {response.status.message}"
    return str(response.prediction.decode())


def ask(args: argparse.Namespace, inference: Any, management: Any) -> Iterator[str]:
    """Yield what the server answers."""
    how = {"metadata": metadata_of(args.auth_token), "timeout": LONG}
    if args.action == "ping":
        yield inference.Ping(Empty(), **how).health
    elif args.action == "infer":
        yield text_of(inference.Predictions(request_of(args.model, args.file), **how))
    elif args.action == "infer_stream":
        yield from map(text_of, inference.StreamPredictions(request_of(args.model, args.file), **how))
    elif args.action == "infer_stream2":
        requests = [request_of(args.model, file, args.sequence) for file in args.files.split(",")]
        yield from map(text_of, inference.StreamPredictions2(iter(requests), **how))
    elif args.action == "register":
        request = management_pb2.RegisterModelRequest(
            url=args.url, initial_workers=1, synchronous=True, model_name=args.model
        )
        yield management.RegisterModel(request, **how).msg
    else:
        request = management_pb2.UnregisterModelRequest(model_name=args.model)
        yield management.UnregisterModel(request, **how).msg


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inference", default="127.0.0.1:7070")
    parser.add_argument("--management", default="127.0.0.1:7071")
    parser.add_argument("--auth-token")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, names in {
        "ping": (),
        "infer": ("model", "file"),
        "infer_stream": ("model", "file"),
        "infer_stream2": ("model", "sequence", "files"),
        "register": ("model", "url"),
        "unregister": ("model",),
    }.items():
        added = actions.add_parser(action)
        for name in names:
            added.add_argument(name)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    args = parse(arguments)
    with grpc.insecure_channel(args.inference) as inference, grpc.insecure_channel(args.management) as management:
        stubs = (
            inference_pb2_grpc.InferenceAPIsServiceStub(inference),
            management_pb2_grpc.ManagementAPIsServiceStub(management),
        )
        try:
            for answer in ask(args, *stubs):
                print(answer)
        except grpc.RpcError as e:
            print(f"{e.code().name}: {e.details()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
