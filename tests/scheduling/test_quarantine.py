# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.scheduling.quarantine`."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, builds, lists, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.scheduling.quarantine import Quarantine
from twisted_serve.wire.messages import Job, Part

inputs = lists(builds(Part, text(max_size=3), text(max_size=3), binary(max_size=3)), max_size=3)


def job(*values: bytes, url_path: str = "", **headers: str) -> Job:
    """Make a request."""
    return Job("r", {"url_path": url_path, **headers}, [Part("body", "", value) for value in values])


class QuarantineTests(SynchronousTestCase):
    """Requests that have killed workers."""

    def test_for_a_while(self) -> None:
        """A blamed request is refused for its time, then forgotten."""
        quarantine = Quarantine(10.0)
        self.assertEqual(0.0, quarantine.left(job(b"x"), 0.0))
        quarantine.blame(job(b"x"), 0.0)
        self.assertEqual((10.0, 0.5), (quarantine.left(job(b"x"), 0.0), quarantine.left(job(b"x"), 9.5)))
        self.assertEqual(0.0, quarantine.left(job(b"x"), 10.0))
        self.assertEqual(0, len(quarantine))

    def test_headers_do_not_disguise(self) -> None:
        """The same input with other headers is the same request; at another path of the model it is another."""
        quarantine = Quarantine()
        quarantine.blame(job(b"x", traceparent="1"), 0.0)
        self.assertGreater(quarantine.left(job(b"x", traceparent="2"), 0.0), 0)
        self.assertEqual(0.0, quarantine.left(job(b"x", url_path="other"), 0.0))

    def test_without_input(self) -> None:
        """A request without any input is never refused: it equals too many others."""
        quarantine = Quarantine()
        quarantine.blame(job(), 0.0)
        self.assertEqual((0, 0.0), (len(quarantine), quarantine.left(job(), 0.0)))

    def test_bounded(self) -> None:
        """A client that sends many different poison requests cannot fill the memory."""
        quarantine = Quarantine(most=3)
        for n in range(10):
            quarantine.blame(job(b"%d" % n), float(n))
        self.assertEqual(3, len(quarantine))
        self.assertEqual(0.0, quarantine.left(job(b"6"), 9.0))
        self.assertGreater(quarantine.left(job(b"7"), 9.0), 0)

    @given(inputs, inputs)
    def test_no_confusion(self, one: list[Part], other: list[Part]) -> None:
        """However inputs are divided into parts, only equal ones have equal fingerprints."""
        quarantine = Quarantine()
        quarantine.blame(Job("1", {}, one), 0.0)
        self.assertEqual(bool(one) and one == other, quarantine.left(Job("2", {}, other), 0.0) > 0)
