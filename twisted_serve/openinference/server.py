# SPDX-License-Identifier: Apache-2.0
"""
Name the server and the extensions of the protocol that it has.
"""

from __future__ import annotations

#: As TorchServe names itself.
SERVER = "Torchserve"

#: TorchServe's extensions, which it lists in a member with a misspelling.
TORCHSERVE_EXTENSIONS = ("kserve", "kubeflow")

#: All extensions.
EXTENSIONS = (*TORCHSERVE_EXTENSIONS, "binary_tensor_data")
