# SPDX-License-Identifier: Apache-2.0
"""
What a server is told by its operator.

``options``         every setting once, with its meaning, default and limits
``load``            where settings come from: environment over command line over file over default
``arguments``       the command line
``properties``      the grammar of the file
``values``          what the text of a setting means, and the error for text that means nothing
``addresses``       where to listen
``snapshots``       the files of snapshots: their names, the newest one, what it may say
``startup_models``  what to load at start
``without_effect``  the predecessor's settings which change nothing here
``report``          all settings of a server and where they came from, for --print-config
``reference``       the page of all settings in docs
"""
