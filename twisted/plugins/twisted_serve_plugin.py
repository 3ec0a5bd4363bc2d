# SPDX-License-Identifier: Apache-2.0
"""
Register ``twisted-serve`` with ``twistd``.
"""

from twisted.application.service import ServiceMaker

twisted_serve = ServiceMaker(  # type: ignore[no-untyped-call]
    "twisted_serve",
    "twisted_serve.tap",
    "Serve PyTorch models: TorchServe's successor.",
    "twisted-serve",
)
