# SPDX-License-Identifier: Apache-2.0
"""
Who may come in.

``tokens``     :class:`~twisted_serve.auth.tokens.Token`: a secret, what it opens, until when
``keyring``    the live tokens: check one, rotate one
``key_file``   ``key_file.json``, where an operator finds them
``expiry``     the service which warns before a token expires
``targets``    a request's target as path segments, read once for the gate and the routes
``gate``       which token a request needs, and whether it has it
``redaction``  keeps keys out of what is written down of a request
``guard``      the gate as a resource around a tree of routes
``journal``    refusals and rotations as log lines and counters
"""
