# SPDX-License-Identifier: Apache-2.0
"""
Run ``twisted-serve dev``.
"""

from __future__ import annotations

import re
import tempfile
from errno import EADDRINUSE
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twisted_serve.archiver.config import ArchiverError, ModelArchiverConfig
from twisted_serve.archives.model_config import load_model_config
from twisted_serve.archives.orphans import WorkDirectory, remove_orphans
from twisted_serve.command.serving import serve
from twisted_serve.config.load import LoadedOptions
from twisted_serve.subcommands.dev.announcing import announcement, curl_line
from twisted_serve.subcommands.dev.project import Project
from twisted_serve.subcommands.dev.settings import MODELS, loaded_options
from twisted_serve.subcommands.output import printable_lines

if TYPE_CHECKING:
    from twisted_serve.interfaces import IServeReactor
    from twisted_serve.service import ModelServer
    from twisted_serve.subcommands.dev.reloading import DevServer

_UNUSABLE = re.compile(r"[^A-Za-z0-9_.-]+")


@click.command()
@click.argument("handler", type=click.Path())
@click.option(
    "--model-file", metavar="FILE", type=click.Path(), help="The Python file with the class of an eager model."
)
@click.option("--serialized-file", metavar="FILE", type=click.Path(), help="The weights: .pt, .pth, .onnx, ...")
@click.option("--extra-files", metavar="FILES", help="Files, directories and globs, with commas between.")
@click.option("--config", metavar="FILE", type=click.Path(), help="The model's settings, YAML.")
@click.option("--name", help="The model's name; by default the handler's.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 for any free one.")
@click.option("--workers", type=click.IntRange(1, 64), help="How many; by default what --config says, or 1.")
@click.option("--token/--no-token", default=True, show_default=True, help="Whether requests need a key.")
def dev(
    handler: str,
    model_file: str | None,
    serialized_file: str | None,
    extra_files: str | None,
    config: str | None,
    name: str | None,
    port: int,
    workers: int | None,
    token: bool,
) -> int:
    """
    Serve a handler's file, without an archive, and load it again when it changes.

    HANDLER is a Python file, with :function if the entry point is neither a class nor handle, or a built-in handler.
    Modules beside it that it imports belong to the model; other files are named by --extra-files, as for an archive.
    The server listens to this machine only, runs until Ctrl-C, and leaves nothing behind. It reads no
    config.properties.
    """
    try:
        model = ModelArchiverConfig(
            name or default_name(handler, model_file),
            handler,
            serialized_file=serialized_file,
            model_file=model_file,
            extra_files=extra_files,
            config_file=config,
        )
        project = Project(model)
        # Found before a server starts: what is missing, and what can be no handler.
        project.collect(lambda warning: None)
    except ArchiverError as e:
        raise click.ClickException(str(e)) from e
    if workers is None:
        settings = None if config is None else load_model_config(Path(config), config)[0].workers
        workers = 1 if settings is None else max(1, settings[0])
    temporary = Path(tempfile.gettempdir())
    # Those of servers that were killed.
    remove_orphans(temporary, [], lambda: False)
    work = WorkDirectory.make(temporary)
    try:
        return _serve(project, work.path, port, workers, token)
    finally:
        work.remove()


def default_name(handler: str, model_file: str | None) -> str:
    """Return the name of a model that is given none: that of its handler's file, or of its own if that is built in."""
    path = Path(handler.partition(":")[0])
    built_in = path.suffix != ".py" and not path.with_suffix(".py").exists()
    stem = Path(model_file).stem if built_in and model_file else path.name.removesuffix(".py")
    return _UNUSABLE.sub("_", stem).lstrip("_.-") or "model"


def _serve(project: Project, directory: Path, port: int, workers: int, tokens: bool) -> int:
    reasons: list[str] = []
    servers: list[DevServer] = []

    def report(reason: str | None) -> None:
        if reason is not None and not (servers and servers[0].started):
            reasons.append(reason)

    def make_server(reactor: IServeReactor, loaded: LoadedOptions) -> DevServer:
        # Imported here: what it builds needs the reactor to be chosen.
        from twisted_serve.eventloop.threads import in_own_thread  # noqa: PLC0415
        from twisted_serve.subcommands.dev.reloading import DevServer  # noqa: PLC0415
        from twisted_serve.tap import make_server as of_options  # noqa: PLC0415

        server = DevServer(
            of_options(reactor, loaded),
            reactor,
            project,
            directory / MODELS,
            workers,
            partial(_announce, project),
            _tell,
            in_own_thread(reactor),
        )
        servers.append(server)
        return server

    status = serve(loaded_options(directory, project.directory, port, tokens), report, make_server)
    if status:
        reason = reasons[0] if reasons else "The server ended."
        if f"[Errno {EADDRINUSE}]" in reason:
            reason = f"Port {port} is taken: --port names another, and --port 0 any free one."
        raise click.ClickException(reason)
    return status


def _tell(text: str) -> None:
    # A handler's exception may have any text.
    click.echo(printable_lines(text))


def _announce(project: Project, server: ModelServer) -> None:
    from twisted_serve.listening.roles import Role  # noqa: PLC0415 - needs no reactor before it is chosen

    name = project.config.model_name
    keys = server.keys
    url = f"{server.addresses[Role.INFERENCE]}/predictions/{name}"
    line = curl_line(url, project.handler.name, None if keys is None else keys.inference.secret)
    click.echo(announcement(project.config.handler, name, url, line, keys is not None))
