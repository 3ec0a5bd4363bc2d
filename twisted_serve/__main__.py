# SPDX-License-Identifier: Apache-2.0
"""Run ``python -m twisted_serve``: the ``twisted-serve`` command."""

import sys

from twisted_serve.cli import main

if __name__ == "__main__":
    sys.exit(main())
