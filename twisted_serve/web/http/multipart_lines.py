# SPDX-License-Identifier: Apache-2.0
"""
Write a multipart body whose lines end with LF alone as the standard has it, with CRLF.

Scripts that put such a body together by hand send it so, and Netty reads it.  The
first boundary decides for the whole body: one whose line ends with CRLF is left as it
is, so that a body which every reader understands has no second reading.
"""

from __future__ import annotations


def in_crlf(boundary: bytes, body: bytes, most: int) -> bytes:
    """
    Return a body with CRLF around its boundaries and its parts' headers; the parts' own bytes stay as they are.

    What is malformed besides is left for the parser to refuse, and so is a body of more parts than that.

    :param most: How many parts it may have.
    """
    delimiter = b"--" + boundary
    begin = 0 if body.startswith(delimiter) else body.find(b"\n" + delimiter) + 1
    first = begin + len(delimiter)
    if not body.startswith(delimiter, begin) or not body.startswith(b"\n", first):
        return body
    written = []
    for piece in body[first:].split(b"\n" + delimiter, most + 1):
        if not piece.startswith(b"\n"):
            # The last boundary, or one that is none.
            written.append(piece)
            continue
        head, end, value = piece.partition(b"\n\n")
        written.append(head.replace(b"\n", b"\r\n") + (b"\r\n\r\n" + value if end else b""))
    return delimiter + (b"\r\n" + delimiter).join(written)
