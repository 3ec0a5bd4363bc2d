# SPDX-License-Identifier: Apache-2.0
"""
Render ``docs/ts_names.md``, the page of TorchServe's names in handlers.

After a change of the table in :mod:`twisted_serve.backend.ts.names`, in the root of the repository::

    python -m docs.generators.ts_names > docs/ts_names.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from twisted_serve.backend.ts.names import BUILT_IN_ENVELOPES, BUILT_IN_HANDLERS, MISSING, NAMES, target

_HEAD = """\
# TorchServe's names

<!-- Made by `python -m docs.generators.ts_names > docs/ts_names.md`: change the table there. -->

Handlers import `ts.…` as ever, though no package called `ts` is installed: a worker finds these names in
`twisted_serve`. A test of yours can do the same:

```python
from twisted_serve.backend.ts.names import install

install()

from ts.torch_handler.base_handler import BaseHandler
```

What is not on this page is an `ImportError` that says so."""

_MISSING = """\
## Not there

| | why |
| --- | --- |"""

_HARDWARE = """\
AWS Neuron, Intel Gaudi and other devices need nothing of the server: their packages are imported by the handler."""


def ts_names_page() -> str:
    """Return the page as Markdown."""
    modules = {name: ", ".join(f"`{target(entry)[0]}`" for entry in entries) for name, entries in NAMES.items()}
    lines = [_HEAD, "", "| module | has |", "| --- | --- |"]
    lines += [f"| `{name}` | {names} |" for name, names in sorted(modules.items()) if names]
    lines += ["", f"Handlers by name: {_listed(BUILT_IN_HANDLERS)}. Envelopes by name: {_listed(BUILT_IN_ENVELOPES)}."]
    lines += ["", _MISSING, *(f"| `{name}` | {why} |" for name, why in sorted(MISSING.items())), "", _HARDWARE, ""]
    return "\n".join(lines)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in sorted(names))


if __name__ == "__main__":
    sys.stdout.write(ts_names_page())
