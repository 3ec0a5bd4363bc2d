# SPDX-License-Identifier: Apache-2.0
"""
This module implements the drop-in by which ``twistd`` knows ``twisted-serve``.
"""

from twisted.application.service import ServiceMaker

twisted_serve = ServiceMaker(  # type: ignore[no-untyped-call]
    "twisted_serve",
    "twisted_serve.tap",
    "Serve PyTorch models: TorchServe's successor.",
    "twisted-serve",
)
