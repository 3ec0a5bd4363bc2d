# SPDX-License-Identifier: Apache-2.0
"""Bodies and targets that are slow to parse where a parser is careless, each as large as may be."""

from __future__ import annotations

import gzip
import zlib

# The default of max_request_size, less what fits in a line.
MOST = 6_553_500

LONGEST_TARGET = 8000

FORM = "Content-Type: application/x-www-form-urlencoded"
PARTS = "Content-Type: multipart/form-data; boundary=b"
JSON = "Content-Type: application/json"


def repeated(piece: bytes, before: bytes = b"", after: bytes = b"", size: int = MOST) -> bytes:
    return before + piece * ((size - len(before) - len(after)) // len(piece)) + after


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n{more}\r\n'.encode() + value + b"\r\n"


def tensor(data: bytes, shape: str = "[1]", datatype: str = "INT64") -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":'.encode() + data + b"}]}"


FORMS = {
    "percent signs": repeated(b"%", b"a="),
    "escapes": repeated(b"%41", b"a="),
    "escapes of zero": repeated(b"%00", b"a="),
    "ampersands": repeated(b"&"),
    "fields": repeated(b"a=1&", after=b"a=1"),
    "a thousand long fields": b"&".join([b"a=" + b"%41" * 2000] * 999 + [b"a=1"]),
    "a thousand names": b"&".join([b"%41" * 2000 + b"=" for _ in range(999)] + [b"a=1"]),
    "pluses": repeated(b"+", b"a="),
    "equals": repeated(b"="),
    "long name": repeated(b"%41", after=b"=1"),
    "bytes that are not UTF-8": repeated(b"%ff", after=b"=1"),
}

MULTIPARTS = {
    "a thousand parts": b"".join(part(f"p{i}", b"a" * 6000) for i in range(1000)) + b"--b--\r\n",
    "more parts": repeated(part("p", b""), after=b"--b--\r\n"),
    "long preamble": repeated(b"\r\n", after=part("p", b"1") + b"--b--\r\n"),
    "preamble of dashes": repeated(b"-", after=b"\r\n" + part("p", b"1") + b"--b--\r\n"),
    "preamble of delimiters": repeated(b"--b", after=b"\r\n" + part("p", b"1") + b"--b--\r\n"),
    "nearly delimiters": part("p", repeated(b"\r\n--", size=MOST - 200)) + b"--b--\r\n",
    "nearly the delimiter": part("p", repeated(b"\r\n--b", size=MOST - 200)) + b"--b--\r\n",
    "line ends": part("p", repeated(b"\r\n", size=MOST - 200)) + b"--b--\r\n",
    "line feeds": part("p", repeated(b"\n", size=MOST - 200)) + b"--b--\r\n",
    "carriage returns": part("p", repeated(b"\r", size=MOST - 200)) + b"--b--\r\n",
    "long headers": b"".join(part("p", b"1", "X: " + "a" * 6000 + "\r\n") for _ in range(1000)) + b"--b--\r\n",
    "many headers": b"".join(part("p", b"1", "X: a\r\n" * 1000) for _ in range(1000)) + b"--b--\r\n",
    "header of quotes": part('"' * 8000, b"1") + b"--b--\r\n",
    "thousand headers of backslashes": b"".join(part("\\" * 6000, b"1") for _ in range(1000)) + b"--b--\r\n",
    "thousand headers of semicolons": b"".join(part('";' * 3000, b"1") for _ in range(1000)) + b"--b--\r\n",
    "no end": part("p", repeated(b"a", size=MOST - 200)),
    "long epilogue": part("p", b"1") + b"--b--\r\n" + b"\r\n--b" * 1_000_000,
    "line feeds alone": b'--b\nContent-Disposition: form-data; name="p"\n\n' + b"\n" * (MOST - 200) + b"\n--b--\n",
    "line feeds in a head": b"--b\n" + repeated(b"a\n", size=MOST - 200) + b"\n--b--\n",
    "line feeds before all": b"\n" * (MOST - 200) + b"--b\n\n\n--b--\n",
    "one line feed delimiters": (b'--b\nContent-Disposition: form-data; name="p"\n\n1\n' * 900) + b"--b--\n",
}

TENSORS = {
    "deep": repeated(b"["),
    "deep data": tensor(b"[" * 2_000_000 + b"]" * 2_000_000),
    "deep objects": repeated(b'{"a":'),
    "digits": tensor(repeated(b"1", b"[", b"]", MOST - 100)),
    "digits of a shape": tensor(b"[1]", "[" + "1" * (MOST - 100) + "]"),
    "digits of a fraction": tensor(repeated(b"1", b"[0.", b"]", MOST - 100), datatype="FP64"),
    "exponent": tensor(repeated(b"1", b"[1e", b"]", MOST - 100), datatype="FP64"),
    "numbers": tensor(repeated(b"1,", b"[", b"1]", MOST - 100), f"[{(MOST - 103) // 2 + 1}]"),
    "empty lists": tensor(repeated(b"[],", b"[", b"[]]", MOST - 100)),
    "keys": repeated(b'"a":1,', b"{", b'"a":1}'),
    "many keys": b"{" + b",".join(b'"%d":1' % i for i in range(500_000)) + b"}",
    "inputs": b'{"inputs":[' + b",".join([b'{"name":"x","shape":[1],"datatype":"INT8","data":[1]}'] * 100_000) + b"]}",
    "shape": tensor(b"[1]", "[" + "1," * 3_000_000 + "1]"),
    "escapes": tensor(repeated(b"\\u0041", b'["', b'"]', MOST - 100), datatype="BYTES"),
    "strings": tensor(repeated(b'"a",', b"[", b'"a"]', MOST - 100), datatype="BYTES"),
    "blanks": repeated(b" "),
    "at the limit": tensor(repeated(b"1,", b"[", b"1]", 130_000), f"[{(130_000 - 3) // 2 + 1}]"),
    "deep at the limit": repeated(b"[", size=131_000),
}

ENCODED = {
    "zeros": ("gzip", gzip.compress(bytes(3_900_000))),
    "zeros, deflate": ("deflate", zlib.compress(bytes(3_900_000))),
    "too many zeros": ("gzip", gzip.compress(bytes(60_000_000))),
    "members": ("gzip", gzip.compress(b"") * 1000),
    "too many members": ("gzip", gzip.compress(b"") * 1001),
    "members of zeros": ("gzip", gzip.compress(bytes(6500)) * 1000),
    "thrice": ("gzip, gzip, gzip", gzip.compress(gzip.compress(gzip.compress(bytes(MOST))))),
    "stored": ("deflate", zlib.compress(bytes(range(256)) * 25_000, 0)),
    "empty lists": ("gzip", gzip.compress(TENSORS["empty lists"])),
    "inputs": ("gzip", gzip.compress(TENSORS["inputs"])),
}

TARGETS = {
    "slashes": "/" * LONGEST_TARGET,
    "segments": "/a" * (LONGEST_TARGET // 2),
    "escapes": "/predictions/" + "%41" * (LONGEST_TARGET // 3),
    "escaped slashes": "/predictions/" + "%2f" * (LONGEST_TARGET // 3),
    "escaped percents": "/predictions/" + "%25" * (LONGEST_TARGET // 3),
    "escapes of escapes": "/predictions/m?a=" + "%25252541" * (LONGEST_TARGET // 10),
    "fields": "/models?" + "a=1&" * (LONGEST_TARGET // 4),
    "ampersands": "/models?" + "&" * (LONGEST_TARGET - 10),
    "semicolons": "/models?" + ";" * (LONGEST_TARGET - 10),
    "plugged": "/v2/models/" + "%41" * 2000 + "/infer",
    "v1": "/v1/models/" + ":" * 7000 + ":predict",
    "legacy": "/" + "a" * 7000 + "/predict",
    "dots": "/predictions/" + "./" * 3900,
    "url path": "/predictions/m/1.0/" + "a/" * 3900,
}
