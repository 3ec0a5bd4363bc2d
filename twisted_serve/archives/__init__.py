# SPDX-License-Identifier: Apache-2.0
"""
Model and workflow archives: locate, fetch, unpack, read and remove them.

Locating and fetching

- `locating`: decide what a location means: an entry of the store, a local path or a URL
- `urls`: ``allowed_urls``, the URLs that may be fetched
- `fetch`, `bounded_agent`: download a URL to a file, within limits of size and time
- `intake`: locate, fetch and unpack an archive of a store, and remove its files later
- `store`: the model store

Unpacking untrusted archives

- `unpack`: extract a ``.mar`` or ``.tar.gz``
- `extraction`: write a directory tree from untrusted archive entries
- `safe_paths`: check that a path stays inside its directory
- `names`: check the names of models, workflows and versions
- `cache`: share one unpacked directory between models with the same content

Reading

- `documents`: parse small JSON and YAML documents within limits
- `manifest`: ``MAR-INF/MANIFEST.json``
- `model_config`, `sections`: ``model-config.yaml`` and its nested sections
- `fields`: map a document's keys to the attributes of a frozen class

Files

- `atomic`: give a file its final name once it is complete
- `removal`: remove a directory tree of any depth
- `orphans`: remove the files of servers that were killed
"""
