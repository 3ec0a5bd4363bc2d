# SPDX-License-Identifier: Apache-2.0
"""
Convert multipart bodies with bare LF line ends to CRLF, as the standard requires.

Scripts that assemble such bodies by hand send bare LF, and Netty accepts it. The first boundary decides for the whole
body: if its line ends with CRLF, the body is left unchanged, so that a standard body has only one interpretation.
"""

from __future__ import annotations


def in_crlf(boundary: bytes, body: bytes, most: int) -> bytes:
    """
    Return a body with CRLF around its boundaries and in its parts' headers; the content of the parts is unchanged.

    Other malformations, and a body with too many parts, are left for the parser to refuse.

    :param most: The most parts that a body may have.
    """
    delimiter = b"--" + boundary
    begin = 0 if body.startswith(delimiter) else body.find(b"\n" + delimiter) + 1
    first = begin + len(delimiter)
    if not body.startswith(delimiter, begin) or not body.startswith(b"\n", first):
        return body
    written = []
    for piece in body[first:].split(b"\n" + delimiter, most + 1):
        if not piece.startswith(b"\n"):
            # The last boundary, or a malformed one.
            written.append(piece)
            continue
        head, end, value = piece.partition(b"\n\n")
        written.append(head.replace(b"\n", b"\r\n") + (b"\r\n\r\n" + value if end else b""))
    return delimiter + (b"\r\n" + delimiter).join(written)
