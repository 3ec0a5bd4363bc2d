# SPDX-License-Identifier: Apache-2.0
"""
Workflows: graphs of models and functions that answer a request together.

- `dag`: the graph of nodes
- `spec`: the specification, YAML
- `manifest`: ``WAR-INF/MANIFEST.json``
- `archive`: read an unpacked workflow
- `store`: the workflow store
- `progress`: sans-IO state of one request: which nodes are ready, and their inputs
- `execution`: run a request's nodes with timeouts and retries
"""
