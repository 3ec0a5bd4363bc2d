# SPDX-License-Identifier: Apache-2.0
"""
Run one server in a process of its own.

``run``: from the start to the exit status. ``serving``: with the reactor of the process. ``banner``: the settings in
the log. ``pid_file``: which server runs, for ``--stop``. ``other_servers``: those that the file does not name.
``run_file``: where a server is, for sub-commands. ``describing``: what the file says. ``private_directory``: its place.
``checking``: what else a server reads at its start.
``launching``: the command line of the server's process. ``signals``: what each signal means. ``shims``: TorchServe's
commands, which start this server. ``twistd``: a server in the process of ``twistd``. ``one_line``: how it refuses to.
``privileged_ports``: those that only root can open. ``other_user``: as which it reads files. The command itself is
``twisted_serve.cli``.
"""
