# SPDX-License-Identifier: Apache-2.0
"""
Pack the files of a model or workflow into a reproducible archive.

- `config`: what to pack, and how
- `handlers`: resolve a handler's name to a file
- `contents`: the files to include, and their names in the archive
- `imports`: find local modules that are imported but not packed
- `checks`: find mistakes before the archive is served
- `forms`: the archive formats, each written reproducibly
- `writing`: write a planned archive completely or not at all
- `packing`: pack a model, from its configuration to the published archive
- `workflows`: pack a workflow
- `command`: ``twisted-serve-archiver``
- `workflow_command`: ``twisted-serve-workflow-archiver``
- `model_archiver`: the names of TorchServe's package ``model_archiver``
"""
