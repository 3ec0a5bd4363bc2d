# SPDX-License-Identifier: Apache-2.0
"""
The server's side of workers.

``pool``        all workers of a model version: scale, submit, retire
``lifecycle``   one slot of a pool, through all its restarts, as a state machine
``status``      what is said about them, as values
``backoff``     how long to wait before the next restart
``dispatch``    requests to free workers, answers to clients
``desk``        one ready worker and the batch that is at it
``ticket``      one request and the promise of its answer
``alarm``       a timer that is cheap to move
``local``       a provider of workers that are processes of this machine
``child``       one such worker
``process``     what such a process prints, and how it ends
``connection``  the frames to and from it
``installation``  what a model needs, installed by pip in a process of its own
``lines``       its output, cut into lines
``launch``      what a worker needs to begin
``spawning``    workers that are started from nothing
``forking``     workers that are forked, and from which template
``family``      the workers of one version, and how they come to share what it loaded
``births``      the asking of a template for a worker
``base``        the template without a model, which all others come from
``control``     the socket to a template
``forked``      a process that a template forked
``preloading``  whether a model needs torch
"""
