# SPDX-License-Identifier: Apache-2.0
"""
All examples: build the archives, serve them with one server, ask each of them, print a line for each with its answer.

Run it with ``make examples``.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
# What the libraries that train and export say about themselves.
warnings.simplefilter("ignore")

from examples.catalogue import EXAMPLES, SETTINGS  # noqa: E402
from examples.server import ExampleServer  # noqa: E402


def main() -> int:
    """Run all examples and return the exit status."""
    with TemporaryDirectory(prefix="twisted_serve-examples-") as place:
        directory = Path(place)
        store = directory / "model_store"
        store.mkdir()
        archives = {}
        for example in EXAMPLES:
            archives[example.name] = example.build(store).name
            print(f"built {archives[example.name]}", flush=True)
        models = [f"{name}={archive}" for name, archive in archives.items()]
        server = ExampleServer(directory, models, SETTINGS, echo=False)
        try:
            if not server.wait_until_started():
                print("The server did not start:", *server.log, sep="\n", file=sys.stderr)
                return 1
            for example in EXAMPLES:
                print(f"{example.name:20} {example.line(example.ask(server))}", flush=True)
        except Exception:
            print("".join(server.log), file=sys.stderr)
            raise
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
