# SPDX-License-Identifier: Apache-2.0
"""
Model archives: where they come from and what is in them.

- `confinement`: which file a name from outside may mean
- `documents`: small JSON and YAML documents, read within bounds
- `manifest`: ``MAR-INF/MANIFEST.json``
- `keys`: a document's keys as attributes of a frozen value
- `model_config`: ``model-config.yaml``
- `sections`: its blocks of keys, ``torchrun``, ``pt2`` and others
- `publishing`: a complete file gets its name
- `tree`: a directory tree, written from entries that nobody vouches for
- `unpack`: ``.mar`` and ``.tar.gz`` to such a tree
- `unpacked`: what is unpacked at the moment, shared by all models that are made of the same bytes
- `urls`: which URLs may be fetched
- `fetch`: such a URL to a file
- `places`: a store; what a client's ``url`` means, and how the archive it names becomes a directory
- `store`: the store of models, each read
"""
