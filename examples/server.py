# SPDX-License-Identifier: Apache-2.0
"""
Run a server for the examples, in a process and a directory of its own, and send it requests.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

STARTED = "Model server started."
INFERENCE = "Inference API bind to: "
MANAGEMENT = "Management API bind to: "

# Longer than all models take to load on a slow machine with a cold disk.
START_SECONDS = 300
ANSWER_SECONDS = 120


class ExampleServer:
    """
    A server that is our child.

    :ivar addresses: Where it listens, by the label in its log.
    :param directory: Its working directory; the model store is ``model_store`` in it.
    :param models: What ``--models`` is to be.
    :param settings: Lines of its ``config.properties``.
    :param echo: Whether its log is passed on to stdout.
    """

    def __init__(
        self, directory: Path, models: list[str], settings: Mapping[str, str] | None = None, echo: bool = True
    ) -> None:
        self.directory = directory
        self.addresses: dict[str, str] = {}
        self.log: list[str] = []
        self._echo = echo
        self._started = threading.Event()
        command = [sys.executable, "-m", "twisted_serve.cli", "--start", "--foreground", "--ncs"]
        command += ["--model-store", str(directory / "model_store"), "--models", *models]
        if settings:
            config = directory / "config.properties"
            config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
            command += ["--ts-config", str(config)]
        (directory / "tmp").mkdir(exist_ok=True)
        if echo:
            print("$ twisted-serve", shlex.join(command[3:]), flush=True)
        # In a session of its own: Ctrl-C is for us, who then end the server.
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "TMPDIR": str(directory / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_log(self) -> None:
        """Pass the server's log on, and pick the addresses out of it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if self._echo:
                print(line, end="", flush=True)
            for label in (INFERENCE, MANAGEMENT):
                if label in line:
                    self.addresses[label] = line.partition(label)[2].strip()
            if line.startswith(STARTED):
                self._started.set()
        self._started.set()

    def wait_until_started(self) -> bool:
        """Wait until the server says that it serves, and say whether it does."""
        return self._started.wait(START_SECONDS) and self.process.poll() is None

    def keys(self) -> dict[str, str]:
        """Read the keys which the server has written."""
        members = json.loads((self.directory / "key_file.json").read_text())
        return {kind: member["key"] for kind, member in members.items()}

    def pieces(self, path: str, body: bytes, content_type: str = "application/octet-stream") -> Iterator[bytes]:
        """
        Send a request and give the pieces of the answer as they come.

        :raise RuntimeError: for an answer of 400 or more, with its text.
        """
        request = urllib.request.Request(
            f"{self.addresses[INFERENCE]}{path}",
            data=body,
            headers={"Authorization": f"Bearer {self.keys()['inference']}", "Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
                while piece := response.read1():
                    yield piece
        except urllib.error.HTTPError as e:
            raise RuntimeError(f"{path} was answered with {e.code}: {e.read().decode(errors='replace')}") from e

    def predict(self, model: str, body: bytes, content_type: str = "application/octet-stream") -> Any:
        """Ask a model that answers JSON."""
        return json.loads(b"".join(self.pieces(f"/predictions/{model}", body, content_type)))

    def stop(self) -> int:
        """Stop the server, and return its exit status."""
        if self.process.poll() is None:
            # Not SIGINT: what a script runs in the background does not hear that.
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
