# SPDX-License-Identifier: Apache-2.0
"""
Render JSON in TorchServe's layout (``docs/torchserve/rest_api.md`` §2.5).
"""

from __future__ import annotations

import json
from typing import Any


def pretty(value: Any) -> str:
    """
    Return a value as JSON, indented by two blanks, with its non-ASCII characters, and without a newline at the end.

    The text can be encoded as UTF-8: a lone surrogate, which JSON input can contain, is a JSON escape again.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
