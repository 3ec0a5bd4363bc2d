# SPDX-License-Identifier: Apache-2.0
"""
Open the ports of a server, whatever protocol is spoken there.

``ports``         the listeners of a server, and their sockets
``endpoints``     the ports of Twisted's endpoints
``proxied``       clients' addresses from the PROXY protocol
``certificates``  renewed certificates for new connections
``tls``           certificates, keys and TLS settings
``admission``     the limit on the number of connections
``open_connections``  the connections of a listener, until they are closed
``roles``         the roles of a listener
"""
