# SPDX-License-Identifier: Apache-2.0
"""
Serve the use cases over HTTP. Only this package uses Klein.

``listeners``  the site of each listener: its routes, and the wrappers around them
``routes``     the endpoint functions
``routing``    Klein applications, the fast path around them, tracing, CORS
``openapi``    OpenAPI documents and the page ``/docs``, made from ``api``
``api``        the API as data: each route once, and the token that each path needs
``http``       the HTTP engine on top of ``twisted.web``: connections, requests, responses
"""
