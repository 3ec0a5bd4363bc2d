# SPDX-License-Identifier: Apache-2.0
"""Tests for named keys by gRPC: what a key may do and see, its limits, and open streams of a key that changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys_case import EVERYTHING, KeyedServer, all_methods
from twisted_serve.auth.gate import AUTHORIZATION_FAILED
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.interfaces import Operation
from twisted_serve.rpc.contracts import Kind, kind_of
from twisted_serve.rpc.descriptors import class_of, method_of
from twisted_serve.rpc.messages import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
    ModelInferRequest,
    ModelStreamInferResponse,
    PredictionResponse,
    PredictionsRequest,
    RepositoryIndexResponse,
)
from twisted_serve.rpc.methods import HEALTH, INFERENCE, KSERVE
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.rpc import MemoryRpcCall, MemoryRpcConnection
from twisted_serve.testing.server import Role

PREDICT = f"/{INFERENCE}/Predictions"
STREAM = f"/{INFERENCE}/StreamPredictions"
TALK = f"/{INFERENCE}/StreamPredictions2"
INFER = f"/{KSERVE}/ModelInfer"
STREAM_INFER = f"/{KSERVE}/ModelStreamInfer"
INDEX = f"/{KSERVE}/RepositoryIndex"
READY = f"/{KSERVE}/ModelReady"

#: Models: two of the pattern, and one that a limited key must not learn of.
MODELS: Any = {"resnet": {}, "resnet-50": {}, "secret": {}}

#: Fields in which a request may name a model; a test holds the list against the descriptors.
NAMING = frozenset({"model_name", "repository_name", "name", "service"})


def asking(name: str, **more: Any) -> PredictionsRequest:
    return PredictionsRequest(model_name=name, input={"data": b"x"}, **more)


def named_in(path: str, model: str, sequence: str = "s") -> Any:
    """Return a request of a method with a model in each field that may name one, else an empty request."""
    kind = class_of(method_of(path).input_type)
    fields = dict.fromkeys(NAMING.intersection(kind.DESCRIPTOR.fields_by_name), model)
    if "sequence_id" in kind.DESCRIPTOR.fields_by_name:
        fields["sequence_id"] = sequence
    return kind(**fields)


class KeyCase(SynchronousTestCase):
    """A server with keys, and a connection to it."""

    def setUp(self) -> None:
        self.server = KeyedServer(EVERYTHING, models=MODELS)
        self.addCleanup(self.server.close)
        self.grpc = self.connect()

    def connect(self, role: Role = Role.INFERENCE) -> MemoryRpcConnection:
        return self.server.grpc(role)

    def hold(self) -> None:
        """Let no worker answer."""
        for worker in self.server.provider.workers:
            worker.holding = True

    def asked(self) -> set[str]:
        """Return the models whose workers got a job, and forget that."""
        asked = {worker.spec.load.model_name for worker in self.server.provider.workers if worker.batches}
        for worker in self.server.provider.workers:
            worker.batches.clear()
        return asked

    def assertRefused(self, call: MemoryRpcCall, code: Code, text: str) -> None:
        self.assertEqual((call.code, call.text, call.messages), (code, text, []))


class SightTests(KeyCase):
    """What a key for some models sees."""

    def test_fields(self) -> None:
        """No request has another field that may name a model."""
        other = {
            "url", "handler", "runtime", "version", "model_version", "next_page_token", "id", "sequence_id", "host",
            "file_by_filename", "file_containing_symbol", "list_services", "all_extension_numbers_of_type",
        }  # fmt: skip
        for path, *_ in all_methods():
            fields = class_of(method_of(path).input_type).DESCRIPTOR.fields
            texts = {field.name for field in fields if field.type == FieldDescriptor.TYPE_STRING}
            self.assertEqual(texts - NAMING - other, set(), path)

    def test_every_method(self) -> None:
        """No answer of any method tells whether a model that the key does not open is there; none reaches a worker."""
        key = self.server.put("limited", "inference:resnet*")
        named = 0
        for path, roles, operation in all_methods():
            connection = self.connect(Role(roles.value & -roles.value))
            answers = []
            for name in ("secret", "nowhere"):
                call = connection.call(path, named_in(path, name), key)
                trailers = {name: value for name, value in call.trailers.items() if name != "x-request-id"}
                answers.append(repr((call.code, call.text, trailers, call.messages)).replace(name, "?"))
            connection.leave()
            self.assertEqual(answers[0], answers[1], path)
            self.assertEqual(self.asked(), set(), path)
            self.assertNotIn("nowhere", answers[0])
            kind = class_of(method_of(path).input_type)
            named += bool(NAMING.intersection(kind.DESCRIPTOR.fields_by_name)) and operation is not Operation.PROBE
        # So many methods name a model: all are asked above.
        self.assertEqual(named, 18)

    def test_refusal(self) -> None:
        """The refusal names key and operation, for a model that is there and for one that is not."""
        key = self.server.put("limited", "inference:resnet*")
        text = "The key limited has no scope for this request (predict)."
        for path in (PREDICT, STREAM, INFER):
            for name in ("secret", "nowhere", "RESNET", "xresnet", " resnet"):
                call = self.grpc.call(path, named_in(path, name), key)
                self.assertEqual((call.code, call.messages), (Code.PERMISSION_DENIED, []), path)
                self.assertEqual(call.text.partition("\n")[0], text)
        inspected = self.grpc.call(READY, named_in(READY, "secret"), key)
        self.assertRefused(
            inspected, Code.PERMISSION_DENIED, "The key limited has no scope for this request (inspect models)."
        )
        self.assertEqual(self.asked(), set())

    def test_allowed(self) -> None:
        """Models of the pattern answer, and unknown ones of it are not found as for any key."""
        key = self.server.put("limited", "inference:resnet*")
        for name in ("resnet", "resnet-50"):
            self.assertEqual(self.grpc.call(PREDICT, asking(name), key).code, Code.OK)
            self.assertEqual(self.grpc.call(READY, named_in(READY, name), key).code, Code.OK)
        self.assertEqual(self.asked(), {"resnet", "resnet-50"})
        unknown = self.grpc.call(PREDICT, asking("resnet-51"), key)
        other = self.grpc.call(PREDICT, asking("resnet-51"), self.server.keys.inference.secret)
        self.assertEqual((unknown.code, unknown.text), (other.code, other.text))

    def test_index(self) -> None:
        """The index needs models:read, and has all models then."""
        for scopes in (("inference",), ("inference:*",), ("models:write", "tokens", "metrics", "console")):
            key = self.server.put("k", *scopes)
            self.assertEqual(self.grpc.call(INDEX, b"", key).code, Code.PERMISSION_DENIED, scopes)
        call = self.grpc.call(INDEX, b"", self.server.put("k", "models:read", "inference:resnet*"))
        [index] = call.parsed(RepositoryIndexResponse)
        self.assertEqual([model.name for model in index.models], sorted(MODELS))

    def test_streams(self) -> None:
        """In a stream a model that the key does not open is an error in place of an answer, the same for any name."""
        key = self.server.put("limited", "inference:resnet*")
        talk = self.grpc.begin(TALK, key)
        for name in ("secret", "nowhere", "resnet"):
            talk.send(asking(name, sequence_id="s"))
        answers = talk.parsed(PredictionResponse)
        self.assertEqual([answer.status.code for answer in answers], [Code.PERMISSION_DENIED] * 2 + [Code.OK])
        self.assertEqual(answers[0], answers[1])
        infer = self.grpc.begin(STREAM_INFER, key)
        for name in ("secret", "nowhere"):
            infer.send(ModelInferRequest(model_name=name))
        texts = {answer.error_message for answer in infer.parsed(ModelStreamInferResponse)}
        self.assertEqual(texts, {"The key limited has no scope for this request (predict)."})
        self.assertEqual(self.asked(), {"resnet"})


class HealthTests(KeyCase):
    """Health, which is open, and tells a key only of the models that it opens."""

    def listed(self, key: str | None) -> set[str]:
        call = self.grpc.call(f"/{HEALTH}/List", HealthListRequest(), key)
        [answer] = call.parsed(HealthListResponse)
        return {name for name in answer.statuses if name in MODELS}

    def test_list(self) -> None:
        """Models are listed as far as the key opens them."""
        self.assertEqual(self.listed(None), set())
        self.assertEqual(self.listed(self.server.put("k", "inference:resnet*")), {"resnet", "resnet-50"})
        self.assertEqual(self.listed(self.server.put("k", "inference")), set(MODELS))
        self.assertEqual(self.listed(self.server.put("k", "models:write", "metrics", "tokens")), set())

    def test_check(self) -> None:
        """What the key does not open is unknown, as without a key."""
        key = self.server.put("k", "inference:resnet*")
        check = f"/{HEALTH}/Check"
        self.assertEqual(self.grpc.call(check, HealthCheckRequest(service="resnet"), key).code, Code.OK)
        for name in ("secret", "nowhere"):
            with_key = self.grpc.call(check, HealthCheckRequest(service=name), key)
            without = self.grpc.call(check, HealthCheckRequest(service=name))
            self.assertEqual((with_key.code, with_key.text), (without.code, without.text))
            self.assertEqual(with_key.code, Code.NOT_FOUND)

    def test_not_counted(self) -> None:
        """An open method takes nothing from the limits of the key, and a scope that is missing is no try."""
        key = self.server.put("k", "metrics", rate=1, concurrent=1)
        with capturedLogs() as logged:
            for _ in range(3):
                self.assertEqual(self.listed(key), set())
        self.assertEqual([event for event in logged if "Refused" in str(event.get("log_format"))], [])
        self.assertEqual(self.server.in_flight("k"), 0)

    def test_watch(self) -> None:
        """A watcher is told no more of a model once its key is revoked."""
        key = self.server.put("k", "inference:resnet*")
        watch = self.grpc.begin(f"/{HEALTH}/Watch", key)
        watch.send(HealthCheckRequest(service="resnet"), end=True)
        hidden = self.grpc.begin(f"/{HEALTH}/Watch", key)
        hidden.send(HealthCheckRequest(service="secret"), end=True)
        self.server.revoke("k")
        self.server.advance(1)
        self.grpc.pump()
        seen = [answer.status for answer in watch.parsed(HealthCheckResponse)]
        self.assertEqual(seen, [HealthCheckResponse.SERVING, HealthCheckResponse.SERVICE_UNKNOWN])
        seen = [answer.status for answer in hidden.parsed(HealthCheckResponse)]
        self.assertEqual(seen, [HealthCheckResponse.SERVICE_UNKNOWN])


class LimitTests(KeyCase):
    """The place of a call among those of its key, and the rate."""

    def test_ends(self) -> None:
        """The place is given back however the call ends: each end but the first leaves room for the next call."""
        self.hold()
        key = self.server.put("k", "inference", concurrent=1)

        def answer(call: MemoryRpcCall) -> None:
            call.send(asking("resnet"), end=True)
            self.server.provider.workers[0].answer()
            self.grpc.pump()
            self.assertEqual(call.code, Code.OK)

        def cancel(call: MemoryRpcCall) -> None:
            call.send(named_in(path, "resnet"))
            call.cancel()

        def too_late(call: MemoryRpcCall) -> None:
            self.hold()
            call.send(asking("resnet"), end=True)
            self.server.advance(1)
            self.grpc.pump()
            self.assertEqual(call.code, Code.DEADLINE_EXCEEDED)

        def leave(_call: MemoryRpcCall) -> None:
            self.grpc.leave()
            self.grpc = self.connect()

        def spoil(call: MemoryRpcCall) -> None:
            call.send(b"\xff\xff", end=True)
            self.assertEqual(call.code, Code.INTERNAL)

        def say_nothing(call: MemoryRpcCall) -> None:
            call.half_close()
            self.assertTrue(call.over)

        def stay_silent(call: MemoryRpcCall) -> None:
            self.server.advance(self.server.options.body_timeout + 1)
            self.grpc.pump()
            self.assertTrue(call.over)

        for path in (PREDICT, STREAM, TALK, INFER, STREAM_INFER):
            streams = kind_of(method_of(path)) is Kind.BIDIRECTIONAL
            for end in (cancel, leave, spoil, say_nothing, *(() if streams else (stay_silent,))):
                call = self.grpc.begin(path, key)
                self.assertEqual(self.server.in_flight("k"), 1, path)
                other = self.grpc.begin(path, key)
                self.assertRefused(
                    other, Code.RESOURCE_EXHAUSTED, "The key k has as many requests in progress as it may."
                )
                self.assertEqual(other.trailers["retry-after"], "1")
                end(call)
                self.assertEqual(self.server.in_flight("k"), 0, f"{path} {end.__name__}")
        for end in (answer, too_late):
            for path in (PREDICT, STREAM):
                end(self.grpc.begin(path, key, timeout=0.5))
                self.assertEqual(self.server.in_flight("k"), 0, f"{path} {end.__name__}")
        for path in (f"/{INFERENCE}/Nothing", "/x.y/Z"):
            self.assertEqual(self.grpc.begin(path, key).code, Code.UNIMPLEMENTED)
            self.assertEqual(self.server.in_flight("k"), 0)

    def test_server_stops(self) -> None:
        """A call that the server ends gives its place back."""
        self.hold()
        call = self.grpc.call(PREDICT, asking("resnet"), self.server.put("k", "inference"))
        self.assertEqual(self.server.in_flight("k"), 1)
        named = self.server.named
        self.server.restart()
        self.assertEqual(named.index.by_name["k"].state.usage.in_flight, 0)
        self.assertNotEqual(call.code, Code.OK)

    def test_rate(self) -> None:
        """Over the rate a call is refused with the seconds to wait, before its message; another key is not."""
        key = self.server.put("k", "inference", rate=2)
        other = self.server.put("other", "inference", rate=2)
        for _ in range(2):
            self.assertEqual(self.grpc.call(PREDICT, asking("resnet"), key).code, Code.OK)
        call = self.grpc.begin(PREDICT, key)
        self.assertRefused(call, Code.RESOURCE_EXHAUSTED, "The key k has made as many requests as it may.")
        self.assertEqual(call.trailers["retry-after"], "30")
        self.assertEqual(self.grpc.call(PREDICT, asking("resnet"), other).code, Code.OK)
        self.server.advance(30)
        self.assertEqual(self.grpc.call(PREDICT, asking("resnet"), key).code, Code.OK)

    def test_rate_of_messages(self) -> None:
        """Each message of a stream counts, the first with the stream; one too many ends it, answered ones stay."""
        for path in (TALK, STREAM_INFER):
            key = self.server.put("k", "inference", rate=3)
            stream = self.grpc.begin(path, key)
            for number in range(4):
                self.assertIsNone(stream.code)
                self.assertEqual(len(stream.messages), number)
                stream.send(named_in(path, "resnet"))
            self.assertEqual(stream.code, Code.RESOURCE_EXHAUSTED)
            self.assertEqual(stream.trailers["retry-after"], "20")
            self.assertEqual(len(stream.messages), 3)
            self.assertEqual(self.server.in_flight("k"), 0)
            self.server.revoke("k")

    def test_stream_is_one_request(self) -> None:
        """Unanswered messages of a stream are one request at the same time."""
        self.hold()
        key = self.server.put("k", "inference", concurrent=1)
        stream = self.grpc.begin(STREAM_INFER, key)
        for _ in range(5):
            stream.send(ModelInferRequest(model_name="resnet"))
        self.assertIsNone(stream.code)
        self.assertEqual(self.server.in_flight("k"), 1)


class StreamTests(KeyCase):
    """Open streams of a key that changes."""

    def streams(self, key: str) -> list[MemoryRpcCall]:
        """Open a stream of each kind, with a message that no worker answers."""
        self.hold()
        streams = []
        for path in (TALK, STREAM_INFER):
            stream = self.grpc.begin(path, key)
            stream.send(named_in(path, "resnet"))
            self.assertIsNone(stream.code)
            streams.append(stream)
        return streams

    def say(self, streams: list[MemoryRpcCall]) -> None:
        for path, stream in zip((TALK, STREAM_INFER), streams, strict=True):
            if not stream.over:
                # Of a sequence that has no unanswered message: others are held back.
                stream.send(named_in(path, "resnet", f"s{len(stream.messages)}-{self.server.clock.seconds()}"))

    def test_refused(self) -> None:
        """The next message of a revoked, disabled, expired or rotated key ends the stream like a wrong key."""

        def expire() -> None:
            self.server.change("k", expires=self.server.now() + timedelta(seconds=5))
            self.server.advance(6)

        def recreate() -> None:
            self.server.revoke("k")
            self.server.put("k", "inference")

        changes = {
            "revoked": lambda: self.server.revoke("k"),
            "disabled": lambda: self.server.change("k", disabled=True),
            "expired": expire,
            "rotated": lambda: self.server.rotate_named("k"),
            "made again": recreate,
        }
        for change, make in changes.items():
            streams = self.streams(self.server.put("k", "inference"))
            usage = self.server.named.index.by_name["k"].state.usage
            make()
            self.say(streams)
            for stream in streams:
                self.assertRefused(stream, Code.PERMISSION_DENIED, AUTHORIZATION_FAILED)
            self.assertEqual(usage.in_flight, 0, change)
            for worker in self.server.provider.workers:
                worker.answer()
            self.grpc.pump()
            self.assertEqual([stream.messages for stream in streams], [[], []], change)

    def test_first_message(self) -> None:
        """A key that is revoked between the headers of a stream and its first message sends none."""
        stream = self.grpc.begin(TALK, self.server.put("k", "inference"))
        self.server.revoke("k")
        stream.send(named_in(TALK, "resnet"))
        self.assertRefused(stream, Code.PERMISSION_DENIED, AUTHORIZATION_FAILED)

    def test_scope_is_lost(self) -> None:
        """A stream whose key has lost the scope ends, saying so; with another pattern it goes on for those models."""
        streams = self.streams(self.server.put("k", "inference"))
        self.server.change("k", scopes=KeyScopes(["inference:secret"]))
        self.say(streams)
        self.assertEqual([answer.status.code for answer in streams[0].parsed(PredictionResponse)], [7])
        self.assertEqual(len(streams[1].messages), 1)
        self.server.change("k", scopes=KeyScopes(["metrics"]))
        self.say(streams)
        for stream in streams:
            self.assertEqual(
                (stream.code, stream.text),
                (Code.PERMISSION_DENIED, "The key k has no scope for this request (predict)."),
            )

    def test_overlap(self) -> None:
        """A stream with the secret before a rotation goes on as long as that is good."""
        streams = self.streams(self.server.put("k", "inference"))
        self.server.rotate_named("k", overlap=60)
        self.say(streams)
        self.assertEqual([stream.code for stream in streams], [None, None])
        self.server.advance(60)
        self.say(streams)
        self.assertEqual([stream.code for stream in streams], [Code.PERMISSION_DENIED] * 2)

    def test_renamed(self) -> None:
        """A key that is renamed while a stream is open goes on, and both names have no request in the end."""
        streams = self.streams(self.server.put("k", "inference", concurrent=2))
        before = self.server.named.index.by_name["k"].state.usage
        self.server.rename("k", "new")
        self.say(streams)
        self.assertEqual([stream.code for stream in streams], [None, None])
        self.grpc.leave()
        self.assertEqual((before.in_flight, self.server.in_flight("new")), (0, 0))

    def test_audit(self) -> None:
        """The refusal of a message is in the audit log once, with the path."""
        [stream, _] = self.streams(self.server.put("k", "inference"))
        self.server.revoke("k")
        with capturedLogs() as logged:
            stream.send(named_in(TALK, "resnet"))
        lines = [event for event in logged if "Refused" in str(event.get("log_format"))]
        self.assertEqual([(event["path"], event["reason"]) for event in lines], [(TALK, "unknown")])


class NameTests(KeyCase):
    """Which name handlers and the log get."""

    def headers_of_jobs(self) -> list[dict[str, str]]:
        """Return the headers of all jobs since the last call."""
        jobs = [job for worker in self.server.provider.workers for batch in worker.batches for job in batch]
        self.asked()
        return [dict(job.headers) for job in jobs]

    def test_handler(self) -> None:
        """A handler gets the name of the key, and never what a client says, however it is spelled."""
        key = self.server.put("team-a", "inference")
        spoofed = [(name, "admin") for name in ("x-ts-key-name", "x_ts_key_name", "x-ts_key-name", "x-ts-key-name-bin")]
        for path in (PREDICT, STREAM, INFER, TALK, STREAM_INFER):
            call = self.grpc.begin(path, key, metadata=spoofed)
            call.send(named_in(path, "resnet"), end=True)
            [headers] = self.headers_of_jobs()
            names = {name: value for name, value in headers.items() if "key" in name.lower()}
            self.assertEqual(names, {"x-ts-key-name": "team-a"}, path)
            self.assertNotIn(key, repr(headers))
        self.grpc.call(PREDICT, asking("resnet"), self.server.keys.inference.secret, metadata=spoofed)
        self.assertFalse(any("key" in name.lower() for name in self.headers_of_jobs()[0]))

    def test_access_log(self) -> None:
        """The access log has the name, and no secret."""
        key = self.server.put("team-a", "inference")
        with capturedLogs() as logged:
            self.grpc.call(PREDICT, asking("resnet"), key)
        lines = [event["line"] for event in logged if "principal=" in event.get("line", "")]
        self.assertEqual(["principal=team-a" in line for line in lines], [True])
        self.assertNotIn(key, repr(logged))

    def test_several_headers(self) -> None:
        """Two values are refused, also of a good key."""
        key = self.server.put("k", "inference")
        for values in ((key, key), (key, self.server.keys.inference.secret), ("x", key)):
            sent = [("authorization", f"Bearer {value}") for value in values]
            call = self.grpc.call(PREDICT, b"", metadata=sent)
            self.assertRefused(call, Code.PERMISSION_DENIED, AUTHORIZATION_FAILED)
