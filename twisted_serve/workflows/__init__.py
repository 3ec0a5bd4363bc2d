# SPDX-License-Identifier: Apache-2.0
"""
Workflows: models and functions that answer a request together, each with what others have made of it.

- `dag`: what comes after what
- `spec`: the specification, YAML
- `manifest`: ``WAR-INF/MANIFEST.json``
- `archive`: a directory with both in it, read
- `store`: the workflow store; what a client's ``url`` means, and the archive it names
- `progress`: one request on its way: which nodes can run now, and with what
- `execution`: the same, with time and with nodes that fail
"""
