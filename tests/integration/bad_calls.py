# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with what a handler does while it serves: rows of the second table in ``docs/handlers.md``."""

from __future__ import annotations

from tests.integration.bad_cases import GARBAGE, BadCall

NO_LIST = "no list is returned, or one of the wrong length"
UNSENDABLE = "an answer that is neither bytes, text, a tensor nor JSON"
HEAD = "a status, header or reason phrase that HTTP does not allow, or more than 64 KiB of headers"
TOO_LARGE = "an answer above `max_response_size`"
PART = "a part of a streamed answer above `max_response_size`, and nothing done about the `ValueError`"
REFUSES = "`PredictionException(message, code)`"
RAISES_THEN = "any other exception"
UNHEARD = "the same, when the handler has closed the descriptors 1 and 2"
RESOURCES = "memory is exhausted, a GPU's included"
DIES_THEN = "the worker exits, crashes, closes its socket or writes to it"
KILLED = "the worker is killed"
TOO_LATE = "no answer within `responseTimeout`"

SERVING = [
    BadCall(
        "none",
        NO_LIST,
        503,
        "Invalid model predict output",
        "must return a list, not NoneType",
        code="results = None",
    ),
    BadCall(
        "tuple",
        NO_LIST,
        503,
        "Invalid model predict output",
        "must return a list, not tuple",
        code="results = ('a',)",
    ),
    BadCall(
        "generator",
        NO_LIST,
        503,
        "Invalid model predict output",
        "must return a list, not generator",
        code="results = (i for i in 'a')",
    ),
    BadCall("too-few", NO_LIST, 503, "number of batch response mismatched", "expect: 1, got: 0", code="results = []"),
    BadCall(
        "too-many",
        NO_LIST,
        503,
        "number of batch response mismatched",
        "expect: 1, got: 2",
        code="results = ['a', 'b']",
    ),
    BadCall(
        "object",
        UNSENDABLE,
        503,
        "Unsupported model output data type.",
        "object cannot be sent",
        code="results = [object()]",
    ),
    BadCall(
        "circle",
        UNSENDABLE,
        503,
        "Unsupported model output data type.",
        "list cannot be sent",
        code="results = [[]]; results[0].append(results[0])",
    ),
    BadCall(
        "surrogate",
        UNSENDABLE,
        503,
        "Unsupported model output data type.",
        "str cannot be sent",
        code="results = ['\\ud800']",
    ),
    BadCall(
        "crlf",
        HEAD,
        500,
        "Response header x must be one line of text",
        "Response header x must be one line",
        code="context.set_response_header(0, 'x', 'a\\r\\nSet-Cookie: b'); results = ['']",
    ),
    BadCall(
        "status",
        HEAD,
        500,
        "must be an integer from 200 to 999, not 99",
        "from 200 to 999, not 99",
        code="context.set_response_status(99, 'odd', 0); results = ['']",
    ),
    BadCall(
        "phrase",
        HEAD,
        500,
        "Response reason phrase must be one line",
        "Response reason phrase must",
        code="context.set_response_status(200, 'a\\nb', 0); results = ['']",
    ),
    BadCall(
        "header",
        HEAD,
        500,
        "Response headers of 5000001 bytes exceed 65536",
        "Response headers of 5000001 bytes exceed",
        code="context.set_response_header(0, 'x', 'a' * 5_000_000); results = ['']",
    ),
    BadCall(
        "gigabyte",
        TOO_LARGE,
        500,
        "exceeds max_response_size, which is 2000000",
        "Response of 1073741824 bytes exceeds",
        code="results = [b'g' * 2**30]",
    ),
    BadCall(
        "part",
        PART,
        503,
        "Prediction failed",
        "Response of 3000000 bytes exceeds max_response_size",
        code="send(['p' * 3_000_000], context.request_ids, '', 200, context)",
    ),
    BadCall("refuses", REFUSES, 418, "no cat", code="raise PredictionException('no cat', 418)"),
    BadCall("refuses-oddly", REFUSES, 500, "no cat", code="raise PredictionException('no cat', 7)"),
    BadCall("refuses-at-length", REFUSES, 400, "ttt", code="raise PredictionException('t' * 50_000_000, 400)"),
    BadCall("exception", RAISES_THEN, 503, "Prediction failed", "ZeroDivisionError", code="1 // 0"),
    BadCall("deep", RAISES_THEN, 503, "Prediction failed", "RecursionError", code="def f(): return f()\nf()"),
    BadCall(
        "odd",
        RAISES_THEN,
        503,
        "Prediction failed",
        "at odds",
        code="class Odd(BaseException): pass\nraise Odd('at odds')",
    ),
    BadCall(
        "muted",
        RAISES_THEN,
        503,
        "Prediction failed",
        "too quiet",
        code="for s in (sys.stdout, sys.stderr): s.close()\nraise ValueError('too quiet')",
    ),
    BadCall(
        "unheard",
        UNHEARD,
        503,
        "Prediction failed",
        "",
        code="os.closerange(1, 3)\nraise ValueError('unheard')",
        spoils=True,
    ),
    BadCall(
        "memory-error",
        RESOURCES,
        507,
        "Out of resources",
        "MemoryError",
        code="resource.setrlimit(resource.RLIMIT_AS, (2**31, resource.RLIM_INFINITY)); results = [b'm' * 2**32]",
        spoils=True,
    ),
    BadCall("leaves", DIES_THEN, 500, "Worker died.", "it exited with code 3", code="sys.exit(3)"),
    BadCall("leaves-at-once", DIES_THEN, 500, "Worker died.", "it exited with code 4", code="os._exit(4)"),
    BadCall("interrupted", DIES_THEN, 500, "Worker died.", "KeyboardInterrupt", code="raise KeyboardInterrupt"),
    BadCall("crashes", DIES_THEN, 500, "Worker died.", "SIGSEGV", code="ctypes.string_at(0)"),
    BadCall("hangs-up", DIES_THEN, 500, "Worker died.", "it exited with code 1", code="os.closerange(3, 100)"),
    BadCall("talks", DIES_THEN, 500, "Worker died.", "broke the protocol", code=GARBAGE),
    BadCall(
        "suicide", KILLED, 507, "Worker died.", "it was ended by SIGKILL", code="os.kill(os.getpid(), signal.SIGKILL)"
    ),
    BadCall(
        "sleeps",
        TOO_LATE,
        500,
        "Worker died.",
        "did not answer within 2 seconds",
        code="signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(60)",
        model="hasty",
    ),
    BadCall(
        "prints",
        TOO_LATE,
        500,
        "Worker died.",
        "did not answer within 2 seconds",
        code="while True: print('e' * 500)",
        model="hasty",
    ),
]
