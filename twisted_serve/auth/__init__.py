# SPDX-License-Identifier: Apache-2.0
"""
Authorization: tokens, the files that hold them, and the check of each request.

``tokens``         :class:`~twisted_serve.auth.tokens.Token`: a secret, its kind and its expiry
``live``           when a live token ends, by two clocks
``keyring``        the live tokens: check one, rotate one
``key_file``       ``key_file.json``, where an operator finds them
``named``          keys with names, one for each consumer
``kept``           the keys that an earlier run has left in that file
``given``          keys that an operator gives, in files or variables
``given_watch``    the service that reads these files again when they change
``owner_files``    files that only their owner can read: write one beside the old one, sync, rename
``replacement``    a lock around the replacement of that file
``expiry``         the service that warns before a token expires, and can rotate it
``metrics_token``  the token of ``/metrics``, in a file of the operator
``targets``        parse a request target into path segments, once for authorization and routing
``scopes``         the scope that each operation needs, for any transport
``needs``          what a request needs
``named``          keys with names, scopes and limits
``gate``           decide from values whether a request is allowed
``refusals``       what a client is told that is refused
``asking``         ask an application's authorizer, which decides instead of tokens
``cred``           an authorizer for the users of a ``twisted.cred`` portal
``guard``          the same decision as a resource around the trees of routes
``redaction``      keep keys out of logged requests
``audit``          refusals and rotations as log lines and counters
"""
