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
import sys
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from examples.server import INFERENCE, ExampleServer  # noqa: E402
from examples.voice_activity.build import build  # noqa: E402

SPEECH = HERE / "voice_activity" / "speech.wav"


def print_commands(server: ExampleServer) -> None:
    """Print what a person may want to try next, in another terminal."""
    commands, directory = (shlex.quote(str(path)) for path in (Path(sys.executable).parent, server.directory))
    speech = shlex.quote(os.path.relpath(SPEECH, server.directory))
    url = f"{server.addresses[INFERENCE]}/predictions/voice_activity"
    print(
        f"""
Try it in another terminal:

  cd {directory} && export TMPDIR=$PWD/tmp PATH={commands}:$PATH
  twisted-serve predict voice_activity {speech}
  curl {url} -T {speech} -H "$(twisted-serve token show inference --header)"
  curl {url} -T {speech}     # no key: refused
  twisted-serve models describe voice_activity
  twisted-serve token rotate inference
  twisted-serve status
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
    (directory / "model_store").mkdir(exist_ok=True)
    build(directory / "model_store")

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    server = ExampleServer(directory, ["voice_activity=voice_activity.mar"])
    try:
        if not server.wait_until_started():
            print("The server did not start.", file=sys.stderr)
            return 1
        answer = server.predict("voice_activity", SPEECH.read_bytes(), "audio/wav")
        print(f"\nThe model's answer:\n{json.dumps(answer, indent=2)}", flush=True)
        if not arguments.once:
            print_commands(server)
            print("Serving; stop with Ctrl-C.", flush=True)
            return server.process.wait()
    except KeyboardInterrupt:
        print("\nStopping.", flush=True)
    finally:
        status = server.stop()
    if (directory / "key_file.json").exists():
        print("key_file.json outlived the server.", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
