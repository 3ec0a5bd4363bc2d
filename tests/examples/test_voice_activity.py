# SPDX-License-Identifier: Apache-2.0
"""Tests for ``examples/voice_activity``: the real network, in a worker in this process."""

from __future__ import annotations

import io
import json
import runpy
import struct
import sys
import wave
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Item, Part

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("silero_vad", reason="silero-vad is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_activity"

# When somebody speaks in speech.wav, by the way it was made (its README).
SPOKEN = [(0.50, 2.92), (3.92, 5.65)]


def wav(frames: bytes, rate: int = 16000, width: int = 2, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(frames)
    return file.getvalue()


def speech() -> list[int]:
    with wave.open(str(EXAMPLE / "speech.wav")) as file:
        return [each for (each,) in struct.iter_unpack("<h", file.readframes(file.getnframes()))]


def body(data: bytes) -> Part:
    return Part("body", "", data)


class VoiceActivityTests(SynchronousTestCase):
    """Recordings in, segments out."""

    def setUp(self) -> None:
        store = Path(self.mktemp()).resolve()
        directory = store / "unpacked"
        self.patch(sys, "path", sys.path[:])
        with zipfile.ZipFile(runpy.run_path(str(EXAMPLE / "build.py"))["build"](store)) as archive:
            self.assertIsNone(archive.testzip())
            archive.extractall(directory)
        manifest = json.loads((directory / "MAR-INF" / "MANIFEST.json").read_text())
        context = local_worker(directory, manifest["model"]["handler"], manifest=manifest)
        self.worker: LocalWorker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def _found(self, item: Item) -> dict[str, Any]:
        self.assertEqual((item.status, item.headers), (200, {"content-type": "application/json"}), item.body)
        answer: dict[str, Any] = json.loads(item.body)
        return answer

    def _assert_spoken(self, item: Item) -> None:
        found = self._found(item)
        self.assertEqual(len(found["segments"]), len(SPOKEN), found)
        for segment, (start, end) in zip(found["segments"], SPOKEN, strict=True):
            self.assertApproximates(segment["start"], start, 0.3)
            self.assertApproximates(segment["end"], end, 0.3)
        self.assertApproximates(found["duration"], 6.147, 0.001)

    def _refused(self, item: Item) -> str:
        error = json.loads(item.body)
        self.assertEqual((item.status, error["code"], error["type"]), (400, 400, "BadRequestException"))
        return str(error["message"])

    def test_speech(self) -> None:
        """In the sample somebody speaks twice, at the right times."""
        (item,) = self.worker.predict(body((EXAMPLE / "speech.wav").read_bytes()))
        self._assert_spoken(item)

    def test_form(self) -> None:
        """A recording can be a form's file ``data``."""
        part = Part("data", "audio/wav", (EXAMPLE / "speech.wav").read_bytes())
        self._assert_spoken(self.worker.predict(part)[0])

    def test_formats(self) -> None:
        """The same sound in other formats has the same segments."""
        samples = speech()
        stereo = [each for sample in samples for each in (sample, 0)]
        twice = [each for sample in samples for each in (sample, sample)]
        formats = [
            wav(bytes((each >> 8) + 128 for each in samples), width=1),
            wav(struct.pack(f"<{len(samples)}i", *(each << 16 for each in samples)), width=4),
            wav(struct.pack(f"<{len(stereo)}h", *stereo), channels=2),
            wav(struct.pack(f"<{len(samples[::2])}h", *samples[::2]), rate=8000),
            wav(struct.pack(f"<{len(twice)}h", *twice), rate=32000),
        ]
        for item in self.worker.predict(*map(body, formats)):
            self._assert_spoken(item)

    def test_odd_rate(self) -> None:
        """A rate that is no multiple of the network's is converted."""
        samples = speech()
        converted = [
            samples[min(len(samples) - 1, round(index * 16000 / 22050))]
            for index in range(len(samples) * 22050 // 16000)
        ]
        (item,) = self.worker.predict(body(wav(struct.pack(f"<{len(converted)}h", *converted), rate=22050)))
        self._assert_spoken(item)

    def test_silence_and_noise(self) -> None:
        """Where nobody speaks there are no segments."""
        random = Random(0)
        noise = struct.pack("<48000h", *(random.randrange(-8000, 8000) for _ in range(48000)))
        for item in self.worker.predict(body(wav(bytes(96000))), body(wav(noise)), body(wav(b""))):
            self.assertEqual(self._found(item)["segments"], [])

    def test_each_for_itself(self) -> None:
        """One bad file does not spoil its batch, and no recording is heard through another."""
        good = body((EXAMPLE / "speech.wav").read_bytes())
        items = self.worker.predict(good, body(b"not audio"), good)
        self._assert_spoken(items[0])
        self.assertIn("not a PCM WAV file", self._refused(items[1]))
        self.assertEqual(items[2].body, items[0].body)

    def test_not_audio(self) -> None:
        """What is not a recording is the client's error, and the answer says why."""
        whole = wav(bytes(1000))
        cut = [whole[:length] for length in (0, 4, 12, 20, 30)]
        for item in self.worker.predict(body(b"hello"), body(bytes(100)), *map(body, cut)):
            self.assertIn("not a PCM WAV file", self._refused(item))
        (item,) = self.worker.predict(Part("body", "application/json", b'{"a": 1}'))
        self.assertIn("sent as JSON or text", self._refused(item))
        (item,) = self.worker.predict(Part("other", "", whole))
        self._refused(item)

    def test_unreadable_formats(self) -> None:
        """WAV files of kinds that are not read are refused by name."""
        for data, named in (
            (wav(bytes(300), width=3), "24 bits"),
            (wav(bytes(300), channels=3), "3 channels"),
            (wav(bytes(300), rate=4000), "4000 Hz"),
            (wav(bytes(300), rate=2**32 - 1, width=1), "4294967295 Hz"),
        ):
            self.assertIn(named, self._refused(self.worker.predict(body(data))[0]))

    def test_cut_off(self) -> None:
        """A recording that was cut off is heard as far as it goes."""
        data = (EXAMPLE / "speech.wav").read_bytes()[:-16001]
        found = self._found(self.worker.predict(body(data))[0])
        self.assertEqual(len(found["segments"]), 2)

    @given(st.binary(max_size=100))
    def test_damaged(self, damage: bytes) -> None:
        """Whatever the bytes of a header are, the answer is segments or a 400."""
        whole = wav(bytes(2000))
        for item in self.worker.predict(body(damage), body(damage + whole[len(damage) :]), body(whole[:44] + damage)):
            self.assertIn(item.status, (200, 400))


class SegmentsTests(SynchronousTestCase):
    """From probabilities to segments."""

    def _segments(self, probabilities: list[float], duration: float = 100.0) -> list[tuple[float, float]]:
        segments = runpy.run_path(str(EXAMPLE / "segments.py"))["segments"]
        return [(round(start, 2), round(end, 2)) for start, end in segments(probabilities, 0.1, duration)]

    def test_pauses(self) -> None:
        """A short pause belongs to the speech, a long one parts it."""
        self.assertEqual(self._segments([0.9] * 5 + [0.0] * 2 + [0.9] * 5), [(0.0, 1.23)])
        self.assertEqual(self._segments([0.9] * 5 + [0.0] * 3 + [0.9] * 5), [(0.0, 0.53), (0.77, 1.33)])

    def test_trembling(self) -> None:
        """Once somebody speaks it takes less to go on than it took to begin."""
        self.assertEqual(self._segments([0.4] * 5 + [0.6] + [0.4] * 5), [(0.47, 1.13)])

    def test_cough(self) -> None:
        """A sound too short for speech is none."""
        self.assertEqual(self._segments([0.0, 0.9, 0.9, 0.0, 0.0, 0.0]), [])

    def test_end(self) -> None:
        """Speech up to the end ends with the recording."""
        self.assertEqual(self._segments([0.0] * 5 + [0.9] * 5, 0.95), [(0.47, 0.95)])

    @given(st.lists(st.floats(0, 1), max_size=60))
    def test_any(self, probabilities: list[float]) -> None:
        """Segments are in order, apart, within the recording, and none is too short."""
        duration = len(probabilities) * 0.1
        edges = [edge for segment in self._segments(probabilities, duration) for edge in segment]
        self.assertEqual(edges, sorted(edges))
        self.assertEqual(len(set(edges)), len(edges))
        self.assertTrue(all(0 <= edge <= round(duration, 2) for edge in edges))
        self.assertTrue(all(end - start >= 0.25 for start, end in zip(edges[::2], edges[1::2], strict=True)))
