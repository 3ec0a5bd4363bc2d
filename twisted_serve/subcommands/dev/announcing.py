# SPDX-License-Identifier: Apache-2.0
"""
Tell the author of a handler where its server is, and how to ask it.
"""

from __future__ import annotations

import shlex

# What the built-in handlers are asked with; an image must be the author's.
_IMAGE_HANDLERS = frozenset({"dali_image_classifier", "image_classifier", "image_segmenter", "object_detector"})
_TEXT_HANDLERS = frozenset({"text_classifier"})


def curl_line(url: str, handler: str, key: str | None) -> str:
    """
    Return a command line that asks for a prediction.

    :param url: The model's address.
    :param handler: The handler's name, which decides what is sent.
    :param key: The inference key; ``None`` if none is needed.
    """
    words = ["curl", url]
    if key is not None:
        words += ["-H", f"Authorization: Bearer {key}"]
    if handler in _IMAGE_HANDLERS:
        words += ["-T", "image.jpg"]
    elif handler in _TEXT_HANDLERS:
        words += ["-H", "Content-Type: text/plain", "-d", "What a fine day."]
    else:
        words += ["-H", "Content-Type: application/json", "-d", '{"input": "hello"}']
    return shlex.join(words)


def announcement(source: str, name: str, url: str, line: str, tokens: bool) -> str:
    """
    Return what the author is told when the first version has loaded.

    :param source: The handler as given.
    :param line: The command line that asks.
    """
    lines = [
        f"{source} answers as {name} at {url}, and is loaded again when a file of it changes. Ctrl-C ends the server.",
        "Ask it:",
        f"  {line}",
    ]
    if not tokens:
        lines.insert(1, "Tokens are off: everything on this machine may ask.")
    return "\n".join(lines)
