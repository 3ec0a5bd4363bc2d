# SPDX-License-Identifier: Apache-2.0
"""Tests for ``deploy/systemd``: that the units, their configuration and the server agree with each other."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from configparser import ConfigParser
from pathlib import Path

import pytest
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

from tests.deploy.test_manifests import DEPLOY
from twisted_serve.command.run import STOP_MARGIN
from twisted_serve.config.arguments import CommandLine, parse_command_line, parser, settings_parser
from twisted_serve.config.load import LoadedOptions, load_options
from twisted_serve.listening.ports import BACKLOG

UNITS = DEPLOY / "systemd"

ANALYZE = shutil.which("systemd-analyze")


def read_unit(text: str) -> ConfigParser:
    """Read a unit, in which each key is there once."""
    unit = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    return unit


def unit(kind: str) -> ConfigParser:
    return read_unit((UNITS / f"twisted-serve.{kind}").read_text())


def parse_start(line: str) -> CommandLine:
    """Parse an ExecStart: all options in it are options of the program."""
    program, *words = shlex.split(line)
    if Path(program).name == "twisted-serve":
        return parse_command_line(words, parser())
    assert Path(program).name == "twistd"
    at = words.index("twisted-serve")
    names = {word.removeprefix("--").partition("=")[0] for word in words[:at]}
    assert names <= {name.rstrip("=") for name in ServerOptions().longOpt}
    assert "nodaemon" in names
    return parse_command_line(words[at + 1 :], settings_parser(ArgumentParser, "", ""))


def load(directory: Path) -> LoadedOptions:
    """Load the configuration as the unit does, with a store which is there."""
    arguments = CommandLine(ts_config=UNITS / "config.properties", model_store=directory, no_config_snapshots=True)
    return load_options(arguments, {}, directory)


def test_start(tmp_path: Path) -> None:
    """The command line has options that exist, and its configuration is accepted without a warning."""
    command = parse_start(unit("service")["Service"]["ExecStart"])
    assert command.ts_config is not None
    assert command.ts_config.name == "config.properties"
    assert command.no_config_snapshots
    assert load(tmp_path).warnings == ()


def test_socket(tmp_path: Path) -> None:
    """The address is that of the socket, which only this machine reaches, as are the other addresses."""
    listening = unit("socket")["Socket"]
    options = load(tmp_path).options
    assert str(options.inference_address) == f"systemd:domain=INET:name={listening['FileDescriptorName']}"
    assert listening["ListenStream"] == "127.0.0.1:8080"
    assert listening["Backlog"] == str(BACKLOG)
    assert {options.management_address.host, options.metrics_address.host} == {"127.0.0.1"}
    assert unit("service")["Unit"]["Requires"] == "twisted-serve.socket"


def test_places(tmp_path: Path) -> None:
    """The server writes where it may, and no other account reads the keys."""
    service = unit("service")["Service"]
    directory = Path("/run") / service["RuntimeDirectory"]
    assert load(tmp_path).options.token_key_file.parent == directory
    assert service["RuntimeDirectoryMode"] == service["StateDirectoryMode"] == "0700"
    assert Path(service["WorkingDirectory"]) == Path("/var/lib") / service["StateDirectory"]
    assert service["PrivateTmp"] == "yes"


def test_end(tmp_path: Path) -> None:
    """systemd waits longer than the server may need."""
    service, options = unit("service")["Service"], load(tmp_path).options
    assert int(service["TimeoutStopSec"]) > options.shutdown_delay + options.shutdown_timeout + STOP_MARGIN
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_confinement() -> None:
    """No right is left that a server does not need."""
    service = unit("service")["Service"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert (service["DynamicUser"], service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "yes", "strict")
    assert (service["SystemCallFilter"], service["RestrictAddressFamilies"]) == (
        "@system-service",
        "AF_UNIX AF_INET AF_INET6",
    )
    # torch could not compile, and metrics could not be read.
    assert not {"MemoryDenyWriteExecute", "ProcSubset"} & set(service)


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_verified(tmp_path: Path) -> None:
    """systemd accepts the units, and finds little that is exposed."""
    here = str(Path(sys.executable).parent)
    for kind in ("service", "socket"):
        text = (UNITS / f"twisted-serve.{kind}").read_text().replace("/opt/twisted-serve/bin", here)
        (tmp_path / f"twisted-serve.{kind}").write_text(text)

    def analyze(*words: str) -> subprocess.CompletedProcess[str]:
        assert ANALYZE is not None
        environ = {**os.environ, "SYSTEMD_COLORS": "0"}
        return subprocess.run(
            [ANALYZE, *words], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    verified = analyze("verify", "./twisted-serve.service", "./twisted-serve.socket")
    assert (verified.returncode, verified.stderr) == (0, "")
    exposed = analyze("security", "--offline=yes", "--threshold=20", "./twisted-serve.service")
    if "unrecognized option" in exposed.stderr:
        pytest.skip("systemd-analyze is too old to look at a unit that is not loaded")
    assert exposed.returncode == 0, exposed.stdout[-300:]
