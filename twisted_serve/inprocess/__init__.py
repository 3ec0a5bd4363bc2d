# SPDX-License-Identifier: Apache-2.0
"""
The calls of the application that runs the server: predictions and changes of models, without a transport.

``calls``: what the application may call while the server runs. ``predictions``: submit requests. ``streams``: responses
that arrive in parts. ``models``: register, scale, unregister. ``arguments``: checks of what the application passes.
"""
