# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.web.http.contracts`."""

from __future__ import annotations

from tests.web.http.channel_case import ChannelTestCase
from twisted_serve.testing.server import Role
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.contracts import AnsweredRequest, ChannelSite, RequestChannel
from twisted_serve.web.http.request import ServeRequest


class ContractsTests(ChannelTestCase):
    """The real parts of a connection; the type checker compares what their attributes are."""

    def setUp(self) -> None:
        super().setUp()
        self.site = self.server.server.site_of(Role.INFERENCE)
        (self.channel,) = self.site.channels

    def test_site(self) -> None:
        """A site has what channels and requests need."""
        site: ChannelSite = self.site
        self.assertIsInstance(site, ChannelSite)

    def test_channel(self) -> None:
        """A channel has what requests and responses need."""
        channel: RequestChannel = self.channel
        self.assertIsInstance(channel, RequestChannel)
        self.assertIs(type(self.channel), ServeChannel)

    def test_request(self) -> None:
        """A request has what responses need."""
        request: AnsweredRequest = ServeRequest(self.channel)
        self.assertIsInstance(request, AnsweredRequest)
