# SPDX-License-Identifier: Apache-2.0
"""
Load the settings of a server: the environment overrides the command line, which overrides the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from twisted_serve.config.arguments import CommandLine
from twisted_serve.config.model_keys import IN_MODELS, hint_for_member, hint_for_setting, plain
from twisted_serve.config.options import (
    ALWAYS_READ,
    KEYS,
    SWITCHES,
    ServerOptions,
    environment_names,
    read_setting,
    with_absolute_paths,
)
from twisted_serve.config.presence import missing_directories, missing_files, missing_flags
from twisted_serve.config.properties import expand, parse_properties
from twisted_serve.config.snapshots import (
    MODEL_SNAPSHOT,
    NEVER_KEPT,
    SnapshotPlan,
    find_snapshots,
    ignored,
    snapshot_moment,
)
from twisted_serve.config.values import ConfigError, truth
from twisted_serve.config.without_effect import ACCEPTED_WITHOUT_EFFECT

DEFAULT_FILE = "config.properties"

# Switches that only a file can set (``docs/torchserve/config_cli.md`` §2.6).
ENVIRONMENT_SWITCH = "enable_envvars_config"
URLS_SWITCH = "use_env_allowed_urls"
FILE_ONLY = frozenset((ENVIRONMENT_SWITCH, URLS_SWITCH))


class LaunchError(ConfigError):
    """A refusal to start a server, in TorchServe's words (``docs/torchserve/config_cli.md`` §1.2)."""


@frozen
class Setting:
    """
    The text of one setting.

    :ivar place: The source of the setting, for messages.
    :ivar written: The text as in the file, before variables are expanded.
    """

    text: str
    place: str
    written: str | None = None


@frozen
class LoadedOptions:
    """
    The settings of a server, and their sources.

    :ivar sources: The source of each setting that is not at its default.
    :ivar permissions: The file's switches for the environment (`FILE_ONLY`).
    :ivar warnings: Lines for the log about settings without effect, or with another effect than it seems.
    :ivar snapshots: Where snapshots are written; ``None`` for no snapshots (``--ncs``).
    :ivar unchecked: With ``only_look``, the files and directories that this machine does not have.
    """

    options: ServerOptions
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    snapshots: SnapshotPlan | None = None
    permissions: Mapping[str, Setting] = field(factory=dict)
    unchecked: tuple[str, ...] = ()


def merge(layers: Iterable[Mapping[str, Setting]]) -> dict[str, Setting]:
    """Merge layers of settings, the lowest first: a higher layer overrides a lower one."""
    return reduce(lambda below, layer: {**below, **layer}, layers, dict[str, Setting]())


def load_options(
    arguments: CommandLine, environ: Mapping[str, str], cwd: Path, *, only_look: bool = False
) -> LoadedOptions:
    """
    Load all settings of a server.

    :param cwd: The directory that paths are relative to.
    :param only_look: Whether no server is started: then the configuration may be for another machine, and missing
        files are listed (`LoadedOptions.unchecked`) instead of refused.
    :raise LaunchError: when a file or directory that was named does not exist.
    :raise ConfigError: for an invalid setting, naming its source.
    """
    missing = list(missing_flags(arguments, cwd))
    if missing and not only_look:
        raise LaunchError(missing[0])
    in_file, remarks, unread = _read_files(arguments, environ, cwd, only_look)
    layers = (in_file, _from_arguments(arguments), _from_environment(in_file, environ))
    merged = merge(layers)
    known = {key: setting for key, setting in merged.items() if key in KEYS}
    options = ServerOptions(**{key: _read(key, setting) for key, setting in known.items()})
    options = with_absolute_paths(options, cwd)
    missing += missing_directories(arguments, options, {key: setting.text for key, setting in known.items()})
    if missing and not only_look:
        raise LaunchError(missing[0])
    if options.model_store is None:
        raise LaunchError("Missing mandatory parameter --model-store")
    options, no_plugins = _without_missing_plugins(options, known)
    unchecked = (*unread, *missing, *missing_files(options)) if only_look else ()
    warnings = (
        *remarks,
        *no_plugins,
        *_ineffective_paths(options, known),
        *_setting_warnings(merged),
        *_member_warnings(options),
        *_flag_warnings(arguments),
        *_variable_warnings(in_file, environ),
    )
    snapshots = None
    if not arguments.no_config_snapshots:
        kept = {**_kept(in_file), "model_store": str(options.model_store)}
        snapshots = SnapshotPlan(_snapshot_directory(in_file, environ, cwd), kept)
    sources = {key: setting.place for key, setting in known.items()}
    permissions = {key: in_file[key] for key in FILE_ONLY & in_file.keys()}
    return LoadedOptions(options, sources, warnings, snapshots, permissions, unchecked)


def named_file(arguments: CommandLine, environ: Mapping[str, str]) -> str | Path | None:
    """Return the configuration file that was named, if any (``docs/torchserve/config_cli.md`` §2.1)."""
    return environ.get("TS_CONFIG_FILE") or arguments.ts_config


def find_file(arguments: CommandLine, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """
    Find the configuration file.

    :raise LaunchError: when the named file does not exist.
    """
    named = named_file(arguments, environ)
    if named is None:
        path = cwd / DEFAULT_FILE
        return path if path.is_file() else None
    path = cwd / named
    if not path.is_file():
        raise LaunchError(f"--ts-config file not found: {named}")
    return path


def _read_files(
    arguments: CommandLine, environ: Mapping[str, str], cwd: Path, only_look: bool
) -> tuple[dict[str, Setting], tuple[str, ...], tuple[str, ...]]:
    """
    Read the configuration file, and the newest snapshot as a layer below it unless a file was named.

    If there is a snapshot, TorchServe ignores a file that was not named; here the settings
    that an operator writes into it are effective.

    :return: The settings, lines for the log, and, with ``only_look``, the errors of unreadable snapshots.
    """
    path = find_file(arguments, environ, cwd)
    in_file = {} if path is None else _read_file(path, environ)
    if path is not None and snapshot_moment(path.name) is not None:
        in_file, remarks = _without_ignored(path, in_file, by_name=True)
        return in_file, tuple(remarks), ()
    if arguments.no_config_snapshots or named_file(arguments, environ) is not None:
        return in_file, (), ()
    try:
        found = find_snapshots(_snapshot_directory(in_file, environ, cwd))
        snapshot = {} if found.newest is None else _read_file(found.newest, environ)
    except ConfigError as e:
        if only_look:
            return in_file, (), (str(e),)
        raise
    remarks = [] if (remark := found.remark()) is None else [remark]
    if found.newest is None:
        return in_file, tuple(remarks), ()
    snapshot, more = _without_ignored(found.newest, snapshot)
    return merge([snapshot, in_file]), (*remarks, *more), ()


def _without_ignored(
    path: Path, settings: Mapping[str, Setting], by_name: bool = False
) -> tuple[dict[str, Setting], list[str]]:
    """Return a snapshot's settings without those that are ignored in a snapshot, and a line for each of the latter."""
    reasons = ignored(settings, by_name)
    counting = {key: setting for key, setting in settings.items() if key not in reasons}
    return counting, [f"{key} in {path} is ignored: {reason}" for key, reason in reasons.items()]


def _snapshot_directory(in_file: Mapping[str, Setting], environ: Mapping[str, str], cwd: Path) -> Path:
    """Return the directory of snapshots, beside the log files (``docs/torchserve/config_cli.md`` §7)."""
    in_properties = in_file["log_location"].text if "log_location" in in_file else None
    return cwd / (environ.get("LOG_LOCATION") or in_properties or "logs") / "config"


def _kept(in_file: Mapping[str, Setting]) -> dict[str, str]:
    """Return the settings to keep in the next snapshot besides the models: those of the file, unexpanded."""
    said = {key: setting.written for key, setting in in_file.items() if key in KEYS or key in FILE_ONLY}
    return {key: text for key, text in said.items() if text is not None and key not in NEVER_KEPT | {MODEL_SNAPSHOT}}


def _read_file(path: Path, environ: Mapping[str, str]) -> dict[str, Setting]:
    try:
        written = parse_properties(path.read_bytes())
        values = expand(written, environ)
    except ConfigError as e:
        raise e.at(str(path)) from e
    except OSError as e:
        raise ConfigError(f"cannot be read: {e.strerror}", place=str(path)) from e
    return {key: Setting(text, str(path), written[key]) for key, text in values.items()}


def _from_arguments(arguments: CommandLine) -> dict[str, Setting]:
    """Return the layer of the command line; its switches can only disable tokens and enable the model API."""
    said = {
        "model_store": ("--model-store", arguments.model_store and str(arguments.model_store)),
        "plugins_path": ("--plugins-path", arguments.plugins_path),
        "workflow_store": ("--workflow-store", arguments.workflow_store and str(arguments.workflow_store)),
        "load_models": ("--models", ",".join(arguments.models)),
        "disable_token_authorization": ("--disable-token-auth", arguments.disable_token_auth and "true"),
        "log_config": ("--log-config", arguments.log_config and str(arguments.log_config)),
        "enable_model_api": ("--enable-model-api", arguments.enable_model_api and "true"),
    }
    return {key: Setting(text, f"command line option {flag}") for key, (flag, text) in said.items() if text}


def _from_environment(in_file: Mapping[str, Setting], environ: Mapping[str, str]) -> dict[str, Setting]:
    """Return the layer of the environment, which only the file can enable (``docs/torchserve/config_cli.md`` §2.6)."""
    layer = {}
    for key in KEYS:
        for name in environment_names(key):
            if name in environ and _is_effective(name, in_file) and not (name in ALWAYS_READ and not environ[name]):
                layer[key] = Setting(environ[name], f"environment variable {name}")
                break
    return layer


def _is_effective(name: str, in_file: Mapping[str, Setting]) -> bool:
    needed = [ENVIRONMENT_SWITCH, URLS_SWITCH] if name == "TS_ALLOWED_URLS" else [ENVIRONMENT_SWITCH]
    return name in ALWAYS_READ or all(switch in in_file and truth(in_file[switch].text) for switch in needed)


def _read(key: str, setting: Setting) -> Any:
    try:
        return read_setting(key, setting.text)
    except ConfigError as e:
        raise e.at(setting.place) from e


def _without_missing_plugins(
    options: ServerOptions, settings: Mapping[str, Setting]
) -> tuple[ServerOptions, tuple[str, ...]]:
    """Drop a missing directory of plug-ins, as Java does, and return a line for the log."""
    directory = options.plugins_path
    if directory is None or directory.is_dir():
        return options, ()
    line = f"plugins_path in {settings['plugins_path'].place} has no effect: {directory} is no directory"
    return evolve(options, plugins_path=None), (line,)


def _ineffective_paths(options: ServerOptions, settings: Mapping[str, Setting]) -> Iterator[str]:
    """Yield warnings about files and directories that are named and have no effect."""
    workflows = options.workflow_store
    if workflows is not None and not workflows.is_dir():
        place = settings["workflow_store"].place
        yield f"workflow_store in {place} has no effect: {workflows} is no directory, so there are no workflows"
    if (options.certificate_file is None) != (options.private_key_file is None):
        key = "private_key_file" if options.certificate_file is None else "certificate_file"
        yield f"{key} in {settings[key].place} has no effect alone; no listener has TLS, or the server would not start"


def _setting_warnings(settings: Mapping[str, Setting]) -> Iterator[str]:
    """Yield warnings about settings without effect, or with another effect than it seems."""
    restored, listed = settings.get(MODEL_SNAPSHOT), settings.get("load_models")
    if restored is not None and restored.text and listed is not None and listed.text:
        yield (
            f"load_models in {listed.place} is ignored: the models of {restored.place} are restored instead; "
            "--ncs starts without snapshots"
        )
    for key, setting in sorted(settings.items()):
        is_word = setting.text.lower() in {"true", "false"}
        # Some switches accept other words, too.
        is_on = key in SWITCHES and read_setting(key, setting.text)
        if (key in SWITCHES or key in FILE_ONLY) and not is_word and not is_on:
            yield f'{key} is {setting.text!r} in {setting.place}: only "true" switches it on, so it is off'
        if key in ACCEPTED_WITHOUT_EFFECT:
            yield f"{key} in {setting.place} has no effect: {ACCEPTED_WITHOUT_EFFECT[key]}"
        elif key not in KEYS and key not in FILE_ONLY:
            yield f"{key!r} in {setting.place} is no setting" + _hint(key)


def _hint(key: str) -> str:
    """Return a hint for an unknown key: it is a model's setting, which belongs elsewhere, or it is misspelt."""
    settings = (*KEYS, *FILE_ONLY, *ACCEPTED_WITHOUT_EFFECT)
    near = [each for each in settings if plain(each) == plain(key)] or get_close_matches(key, settings, n=1, cutoff=0.9)
    of_model = None if near else hint_for_setting(key)
    if of_model is not None:
        return f": {of_model}"
    near = near or get_close_matches(key, settings, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _member_warnings(options: ServerOptions) -> Iterator[str]:
    """Yield warnings about members of ``models`` that TorchServe does not know."""
    unknown = {
        member: f"{name} {version}"
        for name, versions in options.models.items()
        for version, members in versions.items()
        for member in members
        if member not in IN_MODELS
    }
    for member, where in sorted(unknown.items()):
        hint = hint_for_member(member)
        yield f"{member!r} for {where} in models is no setting" + (f"; {hint}" if hint is not None else "")


def _flag_warnings(arguments: CommandLine) -> Iterator[str]:
    """Yield a warning about the only flag that has no effect."""
    if arguments.cpp_log_config is not None:
        yield f"--cpp-log-config has no effect: {ACCEPTED_WITHOUT_EFFECT['cpp_log_config']}"


def _variable_warnings(in_file: Mapping[str, Setting], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield warnings about variables that have no effect, or only if the file enables them."""
    for key in sorted(KEYS):
        for name in environment_names(key):
            if name in environ and not _is_effective(name, in_file):
                needed = f"{ENVIRONMENT_SWITCH}=true" + (f" and {URLS_SWITCH}=true" if key == "allowed_urls" else "")
                yield f"environment variable {name} is ignored: it needs {needed} in the configuration file"
    for key, reason in sorted(ACCEPTED_WITHOUT_EFFECT.items()):
        if (name := f"TS_{key.upper()}") in environ and _is_effective(name, in_file):
            yield f"environment variable {name} has no effect: {reason}"
