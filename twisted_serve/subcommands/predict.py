# SPDX-License-Identifier: Apache-2.0
"""
Ask a model: ``twisted-serve predict``.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from codecs import getincrementaldecoder
from contextlib import ExitStack, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

import click

from twisted_serve.subcommands.client import Answer
from twisted_serve.subcommands.completing import model_names
from twisted_serve.subcommands.outcomes import Failed
from twisted_serve.subcommands.payload import Payload, from_bytes, from_fields, from_file
from twisted_serve.subcommands.session import Session, path_of, with_server

_CHUNK = 65536


@click.command()
@click.argument("model", shell_complete=model_names)
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--version", help="The version; by default the model's default.")
@click.option("--data", "fields", multiple=True, metavar="NAME=VALUE", help="A field of a form; NAME=@FILE for a file.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A header of the request.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), help="The file for the answer.")
@with_server
def predict(
    session: Session,
    model: str,
    file: str | None,
    version: str | None,
    fields: tuple[str, ...],
    headers: tuple[str, ...],
    output: str | None,
) -> None:
    """
    Ask a model, and print its answer.

    The content of FILE, or of standard input for -, is the request. Its type is guessed from name and content, and said
    on stderr; -H "Content-Type: ..." says another. Without FILE and --data the request is empty.
    """
    given = dict(map(_header, headers))
    with ExitStack() as stack:
        payload = _payload(stack, file, fields)
        kind = next((value for name, value in given.items() if name.lower() == "content-type"), None)
        if kind is None and payload.content_type is not None:
            given["Content-Type"] = payload.content_type
            if not fields:
                session.out.note(f"Sent as {payload.content_type} (by its {payload.because}).")
        given["Content-Length"] = str(payload.length)
        path = path_of("predictions", model, *([version] if version else []))
        begun = time.monotonic()
        client = session.client("inference")
        response = client.open("POST", path, {**session.authorization("inference"), **given}, payload.body)
        try:
            if response.status >= 400:
                refusal = session.refusal(Answer(response.status, response.headers, response.read()), "inference")
                if refusal is not None:
                    raise refusal
            if session.out.as_json:
                _write_json(session, model, response, begun)
            elif output is not None and output != "-":
                _write_file(Path(output), response)
            elif session.out.terminal and output is None:
                _write_terminal(response)
            else:
                _copy(response, sys.stdout.buffer)
        except HTTPException as e:
            raise Failed(f"The answer broke off: {e!r}.") from e


def _payload(stack: ExitStack, file: str | None, fields: tuple[str, ...]) -> Payload:
    if fields and file is not None:
        raise click.UsageError("Give either FILE or --data, not both.")
    if fields:
        try:
            return from_fields(fields)
        except ValueError as e:
            raise click.BadParameter(str(e), param_hint="--data") from e
    if file is None:
        return Payload(None, "", b"", 0)
    if file == "-":
        return from_bytes(sys.stdin.buffer.read(), None)
    return from_file(stack.enter_context(Path(file).open("rb")), file)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isprintable():
        raise click.BadParameter(f"{text!r} is no header: NAME: VALUE", param_hint="-H")
    if name.strip().lower() == "authorization":
        raise click.BadParameter("the key is given by TS_KEY or --key", param_hint="-H")
    return name.strip(), value.strip()


def _copy(response: HTTPResponse, out: IO[bytes]) -> None:
    while chunk := response.read1(_CHUNK):
        out.write(chunk)
        out.flush()


def _write_file(path: Path, response: HTTPResponse) -> None:
    """Write the answer into a file, which keeps no half of one."""
    fresh = path.with_name(f".{path.name}.part")
    try:
        with fresh.open("wb") as file:
            _copy(response, file)
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


def _write_terminal(response: HTTPResponse) -> None:
    """Write the answer as it comes, as long as it is text that cannot control the terminal."""
    decoder = getincrementaldecoder("utf-8")()
    last = "\n"
    while chunk := response.read1(_CHUNK):
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError:
            text = "\0"
        if not all(each.isprintable() or each in "\n\r\t" for each in text):
            kind = response.headers.get("Content-Type", "binary")
            raise Failed(f"The answer is no text ({kind}): -o FILE keeps it, and a pipe gets it as it is.")
        click.echo(text, nl=False)
        last = text[-1:] or last
    if last != "\n":
        click.echo()


def _write_json(session: Session, model: str, response: HTTPResponse, begun: float) -> None:
    body = response.read()
    said: dict[str, object] = {
        "model": model,
        "status": response.status,
        "contentType": response.headers.get("Content-Type"),
        "seconds": round(time.monotonic() - begun, 6),
    }
    try:
        text = body.decode()
        said["body"] = text
        with suppress(ValueError, RecursionError):
            said["body"] = json.loads(text)
    except UnicodeDecodeError:
        said["bodyBase64"] = base64.b64encode(body).decode()
    session.out.result(said, lambda: None)
