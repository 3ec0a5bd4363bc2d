# SPDX-License-Identifier: Apache-2.0
"""
Run the ``twisted-serve-archiver`` command, with the flags of ``torch-model-archiver``.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted_serve.archiver.config import DEFAULT_VERSION, FORMATS, ArchiverError, ModelArchiverConfig
from twisted_serve.archiver.packing import plan
from twisted_serve.archiver.writing import Plan, write
from twisted_serve.archives.manifest import RUNTIMES


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = argparse.ArgumentParser(
        prog="twisted-serve-archiver",
        description="Pack a model for twisted-serve or TorchServe: the same files make the same bytes.",
    )
    result.add_argument("--model-name", required=True, help="name of the model, and of the archive")
    result.add_argument("-v", "--version", default=DEFAULT_VERSION, help="version of the model; by default %(default)s")
    result.add_argument(
        "--handler",
        required=True,
        help="a built-in handler's name, or the path of a Python file, with :function if its entry point is one",
    )
    result.add_argument("--serialized-file", help="the weights: .pt, .pth, .onnx, ...")
    result.add_argument("--model-file", help="the Python file with the class of an eager model")
    result.add_argument("--extra-files", help="files, directories and globs, with commas between; directories' content")
    result.add_argument("--runtime", choices=RUNTIMES, default="python", help="what runs the handler")
    result.add_argument("--export-path", type=Path, default=None, help="where the archive goes; here, if not given")
    result.add_argument(
        "--archive-format",
        choices=FORMATS,
        default="default",
        help="default: a compressed .mar; zip-store: one without compression; tgz: .tar.gz; no-archive: a directory",
    )
    result.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="replace an archive that is there; of two files of one name, take the one with a flag of its own",
    )
    result.add_argument("-r", "--requirements-file", help="Python packages for the model, for pip")
    result.add_argument("-c", "--config-file", help="the model's settings, YAML")
    result.add_argument("--dry-run", action="store_true", help="check everything, list what would go in, write nothing")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :return: The exit status: 1 if the archive cannot be made, with the reason on stderr.
    :raise SystemExit: for a wrong command line, and for ``--help``.
    """
    args = parser().parse_args(argv)
    return run_plan(lambda: plan(ModelArchiverConfig.from_args(args), warn=warn), args.dry_run)


def run_plan(make_plan: Callable[[], Plan], dry_run: bool) -> int:
    """
    Write an archive, or list its contents.

    :param make_plan: May raise `ArchiverError`.
    :return: The exit status.
    """
    # On SIGTERM, exit through the cleanup code that removes the partial archive.
    previous_handler = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        planned = make_plan()
        if dry_run:
            print(listing(planned))
        else:
            written = write(planned, warn)
            print(f"{written} ({_size(written)} bytes)")
    except ArchiverError as e:
        print(f"Error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
    return 0


def _size(path: Path) -> int:
    """Return the size of an archive, possibly a directory, in bytes."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def listing(planned: Plan) -> str:
    """Render the contents of a planned archive: its path, then size in bytes, name and origin of each file."""
    lines = [str(planned.destination.path)]
    for entry in planned.entries:
        origin = entry.source if isinstance(entry.source, Path) else "(made)"
        lines.append(f"{entry.size:>12}  {entry.name}  {origin}")
    return "\n".join(lines)


def warn(text: str) -> None:
    """Print a warning."""
    print(f"Warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
