# SPDX-License-Identifier: Apache-2.0
"""
Find plug-ins, and bring ours.

``discovery``: entry points of installed distributions and of directories. ``sagemaker``: SageMaker's endpoints,
served when they are named. Authors of plug-ins import ``twisted_serve.endpoints``.
"""
