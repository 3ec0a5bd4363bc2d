# SPDX-License-Identifier: Apache-2.0
"""
Configuration: the settings of a server, and the files, arguments and variables they are read from.

``options``         every setting once, with its description, default and limits
``listener_options``  those of listeners and connections
``token_options``   those of keys
``setting``         make the fields of settings
``load``            merge the sources: environment over command line over file over default
``arguments``       parse the command line
``properties``      parse and render ``config.properties``
``values``          convert and validate values; the error for invalid ones
``lenient_json``    parse JSON as leniently as TorchServe does
``addresses``       parse the addresses of listeners
``grpc_addresses``  parse the addresses of gRPC listeners
``endpoints``       split the descriptions of Twisted's endpoints
``presence``        check that named files and directories exist
``snapshots``       find the newest snapshot, and its settings that are ignored
``startup_models``  parse the list of models to load at start
``model_keys``      hints for a model's keys among a server's settings
``without_effect``  TorchServe's settings that have no effect here
``report``          all settings with their sources, for ``--print-config``
"""
