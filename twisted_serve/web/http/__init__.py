# SPDX-License-Identifier: Apache-2.0
"""
Speak HTTP: the only package that uses private parts of ``twisted.web``.

``site``, ``channel``, ``request``: a listener, its connections, their requests. ``head_checks``, ``admission``,
``deadlines``: what is refused or given up. ``bodies``, ``multipart_lines``, ``content_coding``, ``queries``: parse
requests. ``responses``: write answers and errors. ``ports``, ``tls``, ``certificates``, ``plain_http``: sockets and
TLS.
"""
