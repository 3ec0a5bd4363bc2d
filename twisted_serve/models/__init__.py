# SPDX-License-Identifier: Apache-2.0
"""
Registered models as values and decisions, without sockets, timers or files.

- `version`: one version of a model and its settings
- `installation`: the interface of an installer of packages
- `settings`: resolve a version's settings from all their sources
- `registry`: the registered versions, and the default version of each model
- `snapshot`: save the registered versions as text and restore them
"""
