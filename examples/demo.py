# SPDX-License-Identifier: Apache-2.0
"""
The demo: build the voice activity archive, start the server on it with tokens on, send it the speech, print the answer.

Run it with ``make demo``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from voice_activity.build import build  # noqa: E402

STARTED = "Model server started."
INFERENCE = "Inference API bind to: "
MANAGEMENT = "Management API bind to: "

# Longer than the model takes to load on a slow machine with a cold disk.
START_SECONDS = 180


class Demo:
    """A server in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses: dict[str, str] = {}
        self.started = threading.Event()
        store = directory / "model_store"
        store.mkdir(parents=True, exist_ok=True)
        build(store)
        command = [sys.executable, "-m", "twisted_serve.cli", "--start", "--foreground", "--ncs"]
        command += ["--model-store", str(store), "--models", "voice_activity=voice_activity.mar"]
        environment = {**os.environ, "TMPDIR": str(directory / "tmp")}
        (directory / "tmp").mkdir(exist_ok=True)
        print("$ twisted-serve", shlex.join(command[3:]), flush=True)
        # In a session of its own: Ctrl-C is for the demo, which then ends the server.
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_log(self) -> None:
        """Pass the server's log on, and pick the addresses out of it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(line, end="", flush=True)
            for label in (INFERENCE, MANAGEMENT):
                if label in line:
                    self.addresses[label] = line.partition(label)[2].strip()
            if line.startswith(STARTED):
                self.started.set()
        self.started.set()

    def keys(self) -> dict[str, str]:
        """Read the keys which the server has written."""
        members = json.loads((self.directory / "key_file.json").read_text())
        return {kind: member["key"] for kind, member in members.items()}

    def predict(self, audio: Path) -> Any:
        """Send a file to the model and return its answer."""
        request = urllib.request.Request(
            f"{self.addresses[INFERENCE]}/predictions/voice_activity",
            data=audio.read_bytes(),
            headers={"Authorization": f"Bearer {self.keys()['inference']}", "Content-Type": "audio/wav"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def stop(self) -> int:
        """Stop the server as Ctrl-C does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def print_commands(self) -> None:
        """Print what a person may want to try next."""
        keys, inference, management = self.keys(), self.addresses[INFERENCE], self.addresses[MANAGEMENT]
        speech = shlex.quote(os.path.relpath(HERE / "voice_activity" / "speech.wav"))
        print(
            f"""
Try it (the keys are in {os.path.relpath(self.directory / "key_file.json")}):

  curl {inference}/predictions/voice_activity -T {speech} -H "Authorization: Bearer {keys["inference"]}"
  curl {management}/models/voice_activity -H "Authorization: Bearer {keys["management"]}"
  curl -X POST "{management}/token?type=inference" -H "Authorization: Bearer {keys["API"]}"
  curl {inference}/predictions/voice_activity -T {speech}     # no key: refused
""",
            flush=True,
        )


def main() -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the prediction")
    parser.add_argument("--directory", type=Path, default=HERE.parent / ".demo")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    directory.mkdir(mode=0o700, exist_ok=True)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    demo = Demo(directory)
    try:
        if not demo.started.wait(START_SECONDS) or demo.process.poll() is not None:
            print("The server did not start.", file=sys.stderr)
            return 1
        answer = demo.predict(HERE / "voice_activity" / "speech.wav")
        print(f"\nThe model's answer:\n{json.dumps(answer, indent=2)}", flush=True)
        if not arguments.once:
            demo.print_commands()
            print("Serving; stop with Ctrl-C.", flush=True)
            return demo.process.wait()
    except KeyboardInterrupt:
        print("\nStopping.", flush=True)
    finally:
        status = demo.stop()
    if (directory / "key_file.json").exists():
        print("key_file.json outlived the server.", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
