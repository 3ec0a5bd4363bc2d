# SPDX-License-Identifier: Apache-2.0
"""
Run the ``twisted-serve-workflow-archiver`` command, with the flags of ``torch-workflow-archiver``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted_serve.archiver.command import run_plan, warn
from twisted_serve.archiver.workflows import WorkflowArchiverConfig, plan_workflow


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = argparse.ArgumentParser(
        prog="twisted-serve-workflow-archiver",
        description="Pack a workflow for twisted-serve or TorchServe: the same files make the same bytes.",
    )
    result.add_argument("--workflow-name", required=True, help="name of the workflow, and of the archive")
    result.add_argument("--spec-file", required=True, help="the specification, YAML")
    result.add_argument("--handler", help="the Python file with the workflow's functions, if it has any")
    result.add_argument("--extra-files", help="files, directories and globs, with commas between; directories' content")
    result.add_argument("--export-path", type=Path, default=None, help="where the archive goes; here, if not given")
    result.add_argument("-f", "--force", action="store_true", help="replace an archive that is there")
    result.add_argument("--dry-run", action="store_true", help="check everything, list what would go in, write nothing")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :return: The exit status: 1 if the archive cannot be made, with the reason on stderr.
    :raise SystemExit: for a wrong command line, and for ``--help``.
    """
    args = parser().parse_args(argv)
    return run_plan(lambda: plan_workflow(WorkflowArchiverConfig.from_args(args), warn=warn), args.dry_run)


if __name__ == "__main__":
    sys.exit(main())
