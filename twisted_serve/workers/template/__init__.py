# SPDX-License-Identifier: Apache-2.0
"""
Fork workers from template processes (zygotes).

``launcher``: fork or spawn. ``root_template``: the server's own template, which has imported everything and loaded no
model. ``version_template``: the workers of one version, and their template with the model loaded. ``link``: the socket
to a template. ``process``: a forked process, which is no child of the server. ``torch_detection``: guess whether a
model needs torch.
"""
