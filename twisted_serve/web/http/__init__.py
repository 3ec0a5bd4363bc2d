# SPDX-License-Identifier: Apache-2.0
"""
Serve HTTP/1.1: the only package that uses private attributes of ``twisted.web``.

``site``             a listener: access log, counters, open connections
``channel``          a connection: timeouts, refusals before the body
``mounted``          requests of another site's channel
``asking``           requests whose body waits for an application's authorizer
``quick``            usual requests, left to the fast lane, and connections handed out to fronts
``large_bodies``     large bodies, read from the socket into one buffer
``early_responses``  responses to requests that are still arriving
``writing``          the head of a response, sent with its first bytes
``request``          a request: its bounded body, its headers as spelled
``contracts``        what channel, request and response need of each other
``limits``           the limits of a connection
``responses``        JSON responses, and the error tree as responses
``rendering``        JSON, error objects and header lines
``heads``            response heads, rendered
``usual_heads``      the heads of usual requests, recognized without Twisted's parser
``head_checks``      the checks of a request head that Twisted leaves out
``deadlines``        the client's deadline
``content_coding``   compressed request bodies
``queries``          query parameters
``plain_http``       TLS listeners that answer plain HTTP with an error
"""
