# SPDX-License-Identifier: Apache-2.0
"""
What twisted_serve costs, and what its peers cost, measured in one run (``make bench``; ``docs/performance.md``).

``cases``      what is asked of a server
``servers``    how each server is started, asked and ended
``processes``  the processes of a server: their time and their memory
``load``       one measurement by ``wrk``
``rpc``        gRPC, by ``h2load``
``bare``       the handler in a loop, and a bare ``twisted.web``: what no server passes
``limit``      a bare Twisted protocol with a worker: what the language allows
``peers``      scripts that serve the cases with other servers
``results``    rows, and the medians of their rounds
``report``     ratios, targets, tables
``tables``     Markdown
``run``        the command
``scale``      what grows with fronts, connections, models and keys
``scaling``    the table of that
``compare``    two checkouts, pair by pair
``front``      where the time of a prediction goes in the front
``named_keys`` the check, load and change of named keys
``picture``    the picture
``soak``       minutes of load: what grows
"""
