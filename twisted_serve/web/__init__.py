# SPDX-License-Identifier: Apache-2.0
"""
HTTP.  Klein is used here and nowhere else.

``channel``     connections: limits, deadlines, and the gate before the body
``request``     a request: its bounded body, its headers as they were spelled
``site``        what a listener serves its connections from; access log and counters
``answers``     JSON answers, and the error tree as answers
``doors``       which token a path needs, by the roles of a listener
``queries``     query parameters, read as leniently as the predecessor does
``bodies``      request bodies as inputs of a handler; a handler's answers as responses
``public``      the routes which need no token
``deadlines``   how long a client says that it waits
``jobs``        what all routes that predict have in common
``inference``   ``/ping``, ``/predictions`` and ``/explanations``
``sagemaker``   ``/invocations``, ``/models/{model}/invoke``, and the paths of old clients
``kserve``      KServe's ``/v1`` and ``/v2``; ``tensors``: their tensors
``management``  ``/models`` and ``/token``
``metrics``     ``/metrics``
``operations``  the table of all operations
``description`` the API descriptions, which are made of it; ``page``: for people
``plugged``     the endpoints of plug-ins
``preflight``   what browsers ask before a page may call us
``listeners``   which listener has which of these routes
"""
