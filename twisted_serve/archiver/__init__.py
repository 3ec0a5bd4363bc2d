# SPDX-License-Identifier: Apache-2.0
"""
The archiver: files of a model become an archive, the same bytes each time.

- `config`: what to pack, and how
- `handlers`: what a handler's name means, and which file it is
- `contents`: which files go in, and under which names
- `checks`: what is found before anybody tries to serve it
- `forms`: the physical forms, each written reproducibly
- `writing`: an archive is there as a whole, or not at all
- `packing`: all of it, from a model's config to the published archive
- `workflows`: the same for a workflow
- `command`: ``twisted-serve-archiver``
- `workflow_command`: ``twisted-serve-workflow-archiver``
- `model_archiver`: the names of the predecessor's package ``model_archiver``
"""
