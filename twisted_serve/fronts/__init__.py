# SPDX-License-Identifier: Apache-2.0
"""
Read and write the connections of clients in other processes, the fronts (``front_processes``).

A front recognizes usual predictions, passes them on as frames and sends the responses. Anything else it returns, with
the connection, to the server, which so remains the only process that decides.

In the server's process:

``keeper``          hand connections out, take them back
``link``            the messages with one front
``requests``        predictions whose connections are in a front
``lost_transport``  in place of a connection that was lost in a front
``processes``       start fronts, and replace those that end

In a front, which ``python -m twisted_serve.fronts`` runs:

``front``           its connections, and its end of the messages
``connection``      one connection

In both:

``adoption``        connections that pass from process to process
"""
