# SPDX-License-Identifier: Apache-2.0
"""
Use cases, the same for every transport.

``catalogue``    the registered versions, each with its pool of workers
``inference``    predict, and whether the server is healthy or ready
``registrar``    versions come and go, with their files and workers
``management``   register, describe, scale, unregister, choose the default
``workflows``    the same for workflows, and have one answer
``metadata``     describe with the handler's own words
``rotation``     replace a token
``memory``       how much memory workers have
``snapshots``    a file for each change of the registered versions
``overview``     what plug-ins may know of the server
``describing``   a model version as the members which describe shows
"""
