# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``docs/migrating.md``: the lines for Dockerfiles, and the table of what is refused and what is warned of.

What stands in the way of running a Dockerfile here is left out: its base image, and ``pip install``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.conftest import COMMAND, ECHO, LONG, Server
from twisted_serve.config.arguments import CommandLine
from twisted_serve.config.load import load_options
from twisted_serve.config.values import ConfigError
from twisted_serve.metrics.torchserve.definitions import read_catalogue
from twisted_serve.models.settings import check_all_configured

if TYPE_CHECKING:
    from tests.docs.conftest import Block, ReadBlocks

PAGE = "migrating.md"
TEXT = (Path(__file__).resolve().parents[2] / "docs" / PAGE).read_text(encoding="utf-8")

_SECTION = re.search(r"^## What is refused at the start.*?(?=^## )", TEXT, re.M | re.S)
_ROW = re.compile(r"^\| `((?!--)[a-z_]+=[^`]*)`([^|]*)\|([^|]*)\|([^|]*)\|$", re.M)

# What SageMaker's toolkit writes into its file, but for the ports.
SAGEMAKER = """vmargs=-XX:-UseContainerSupport
enable_envvars_config=true
decode_input_request=false
load_models=ALL
disable_token_authorization=true
enable_model_api=true
default_response_timeout=60
default_workers_per_model=1
default_service_handler=handler.py:handle
models={\\
        "model": {\\
            "1.0": {\\
                "defaultVersion": true,\\
                "marName": "model.mar",\\
                "minWorkers": 1,\\
                "maxWorkers": 1,\\
                "batchSize": 1,\\
                "maxBatchDelay": 100,\\
                "responseTimeout": 60\\
                }\\
            }\\
        }
"""


def rows() -> list[tuple[str, str]]:
    """Return the settings of the table, each with what becomes of it here."""
    assert _SECTION is not None
    return [(match[1].replace("\\|", "|"), match[4].strip()) for match in _ROW.finditer(_SECTION[0])]


def dockerfiles(read_blocks: ReadBlocks) -> list[Block]:
    """Return the Dockerfiles of the page, as they are after the change."""
    return [block for block in read_blocks(PAGE, "diff") if " FROM " in block.text]


def lines_of(block: Block) -> list[str]:
    """Return the lines of a Dockerfile after the change."""
    return [line[1:] for line in block.text.splitlines() if not line.startswith("-")]


@pytest.mark.parametrize(("line", "here"), rows(), ids=lambda each: each[:40])
def test_table(tmp_path: Path, line: str, here: str) -> None:
    """Each setting is refused, warned of or read as the table says."""
    (tmp_path / "config.properties").write_text(line.replace("\\", "\\\\"))

    def start() -> tuple[str, ...]:
        loaded = load_options(CommandLine(model_store=tmp_path), {}, tmp_path)
        check_all_configured(loaded.options.models)
        read_catalogue(loaded.options.metrics_config)
        return loaded.warnings

    if here.startswith("refused"):
        with pytest.raises((ConfigError, ValueError), match=re.escape(line.partition("=")[0])):
            start()
    else:
        assert ("warn" in here) == bool(start())


def test_rows() -> None:
    """The table is read at all."""
    assert len(rows()) > 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Make a server in directories of its own, with a model store."""
    made = Server(tmp_path)
    made.add_model("echo", ECHO)
    yield made
    made.kill()


def run_lines(lines: list[str], place: Path, environ: dict[str, str]) -> None:
    """Run what a Dockerfile runs, in the place of the image's own ``/usr/local/bin``."""
    for line in lines:
        if line.startswith("RUN ") and "pip install" not in line:
            command = line.removeprefix("RUN ").replace("/usr/local/bin", str(place))
            subprocess.run(["sh", "-ec", command], env=environ, timeout=LONG, check=True, capture_output=True)


@pytest.mark.integration
def test_dockerfiles(read_blocks: ReadBlocks, server: Server) -> None:
    """After each of the changes ``torchserve`` is ours, and the command of the first Dockerfile serves."""
    blocks = dockerfiles(read_blocks)
    assert len(blocks) == 4
    for number, block in enumerate(blocks):
        place = server.cwd.parent / f"bin{number}"
        place.mkdir()
        if "--force" in block.text:
            (place / "torchserve").write_text("#!/bin/sh\necho of the image\n")
            (place / "torchserve").chmod(0o755)
        path = os.pathsep.join((str(place), str(COMMAND.parent), os.environ["PATH"]))
        run_lines(lines_of(block), place, {**server.environ, "PATH": path})
        done = subprocess.run(
            ["sh", "-c", "torchserve --version"],
            env={**server.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=LONG,
            check=True,
        )
        assert "twisted_serve" in done.stdout
    [command] = [line.removeprefix("CMD ") for line in lines_of(blocks[0]) if line.startswith("CMD ")]
    words = [str(server.store) if word == "/models" else word for word in json.loads(command)]
    server.start(command=[str(server.cwd.parent / "bin0" / words[0]), *words[1:]])
    assert server.predict("echo", b"hello").body == b"hello"
    assert server.stop() == 0


@pytest.mark.integration
def test_sagemaker(server: Server) -> None:
    """What SageMaker's toolkit does finds one server, which answers, and ends when the toolkit is told to end."""
    model = server.cwd.parent / "opt" / "ml" / "model"
    shutil.move(server.store / "echo", model)
    shutil.rmtree(model / "MAR-INF")
    shims = server.cwd.parent / "shims"
    subprocess.run([COMMAND, "shims", shims], capture_output=True, timeout=LONG, check=True)
    settings = SAGEMAKER.replace("handler.py", str(model / "handler.py"))
    ports = "".join(f"{role}_address=http://127.0.0.1:0\n" for role in ("inference", "management", "metrics"))
    (server.cwd / "sagemaker-ts.properties").write_text(settings + ports)
    (server.cwd / "log4j2.xml").write_text('<Configuration><Loggers><Root level="info"/></Loggers></Configuration>')
    words = ["--start", "--model-store", "store", "--ts-config", "sagemaker-ts.properties"]
    words += ["--log-config", "log4j2.xml", "--models"]
    (server.cwd / "store").mkdir()
    with server.output.open("ab") as output:
        launcher = subprocess.Popen(
            [shims / "torchserve", *words, f"model={model}"],
            cwd=server.cwd,
            env=server.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def found() -> list[psutil.Process]:
        processes = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("TMPDIR") == str(server.temp)
                if ours and "org.pytorch.serve.ModelServer" in process.cmdline():
                    processes.append(process)
        return processes

    # A moment between fork and exec of a worker shows it as the server, as does Java's; the toolkit looks again.
    server.until(lambda: len(found()) == 1, "the toolkit to find one server")
    server.until(lambda: launcher.poll() is not None, "the launcher to end")
    assert launcher.returncode == 0, server.log()
    [process] = found()
    server.learn_ports()
    answer = server.curl("inference", "/invocations", body=b"hello")
    assert (answer.status, answer.body) == (200, b"hello")
    assert server.curl("inference", "/ping").status == 200
    process.terminate()
    server.until(lambda: not server.alive(process.pid), "the server to end")
    server.assert_clean()


def test_interpreter() -> None:
    """The tests run the command of this installation."""
    assert Path(sys.executable).parent == COMMAND.parent
