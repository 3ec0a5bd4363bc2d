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
``inference``   ``/ping`` and ``/predictions``
``management``  ``/models`` and ``/token``
``description`` the API description
``listeners``   which listener has which of these routes
"""
