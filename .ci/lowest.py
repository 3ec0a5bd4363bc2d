# SPDX-License-Identifier: Apache-2.0
"""
Write constraints that pin each dependency to the lowest version that pyproject.toml declares.

Give the names of extras whose dependencies count, too. What declares no lower bound is left to pip. It needs nothing
but pip, whose own copies of tomli and packaging it uses where Python has none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def requirements(extras: set[str]) -> Iterator[Requirement]:
    """List what the project and some of its extras depend on, extras that name others included."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    wanted, seen = [""], set()
    wanted += sorted(extras)
    while wanted:
        extra = wanted.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for line in project["optional-dependencies"][extra] if extra else project["dependencies"]:
            requirement = Requirement(line)
            if requirement.name == project["name"]:
                wanted += requirement.extras
            elif requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                yield requirement


def lowest(requirement: Requirement) -> str | None:
    """Return the lowest version that a requirement allows, if it says which."""
    bounds = [each.version for each in requirement.specifier if each.operator in (">=", "==", "~=")]
    return bounds[0] if len(bounds) == 1 else None


def main(extras: list[str]) -> None:
    """Write the constraints to stdout."""
    for requirement in requirements(set(extras)):
        version = lowest(requirement)
        sys.stdout.write(f"{requirement.name}=={version}\n" if version is not None else f"# {requirement.name}: any\n")


if __name__ == "__main__":
    main(sys.argv[1:])
