# SPDX-License-Identifier: Apache-2.0
"""
Speak HTTP: the only package that uses private parts of ``twisted.web``.

``site``, ``channel``, ``request``: a listener, its connections, their requests; ``contracts``: what each needs of the
one before it; ``limits``: how much a client may send. ``head_checks``, ``admission``, ``deadlines``: what is refused or
given up. ``bodies``, ``multipart_lines``, ``content_coding``, ``queries``: parse requests. ``responses``,
``rendering``: write answers and errors. ``ports``, ``tls``, ``certificates``, ``plain_http``: sockets and TLS.
"""
