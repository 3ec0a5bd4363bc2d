# SPDX-License-Identifier: Apache-2.0
"""
Answer the methods of each service with the use cases of `planes`.

* `health` tells whether the server and its models are ready.
* `reflection` describes the services of a listener.
"""
