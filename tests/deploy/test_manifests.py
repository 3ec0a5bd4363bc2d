# SPDX-License-Identifier: Apache-2.0
"""Tests for ``deploy``: that the manifests and the image's files agree with each other and with the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from twisted_serve.command.run import STOP_MARGIN
from twisted_serve.config.arguments import parse_command_line, parser
from twisted_serve.config.load import LoadedOptions, load_options
from twisted_serve.config.options import ALWAYS_READ
from twisted_serve.testing.server import MemoryServer

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def manifest(kind: str) -> Any:
    """Read the only manifest of a kind."""
    [found] = [
        document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text()) if document["kind"] == kind
    ]
    return found


def pod() -> Any:
    return manifest("Deployment")["spec"]["template"]["spec"]


def container() -> Any:
    [only] = pod()["containers"]
    return only


def configurations() -> Iterator[str]:
    yield (DEPLOY / "config.properties").read_text()
    yield manifest("ConfigMap")["data"]["config.properties"]


def load(text: str, directory: Path) -> LoadedOptions:
    """Load a configuration as the image does, with a store which is there."""
    (directory / "config.properties").write_text(text)
    words = ("--ncs", "--ts-config", "config.properties", "--model-store", str(directory), "--models", "all")
    return load_options(parse_command_line(words, parser()), {}, directory)


def is_mounted(path: Path) -> bool:
    """Say whether a path is on a volume that can be written to."""
    return any(
        path.is_relative_to(mount["mountPath"]) for mount in container()["volumeMounts"] if not mount.get("readOnly")
    )


def test_documents() -> None:
    """Every file holds what it is called after, labelled alike."""
    kinds = [yaml.safe_load(path.read_text())["kind"].lower() for path in MANIFESTS]
    assert kinds == [path.stem for path in MANIFESTS] == ["configmap", "deployment", "networkpolicy", "service"]
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels


def test_given_keys() -> None:
    """What the page adds for a secret fits into the deployment, and names a variable that the server reads."""
    page = (DEPLOY.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.S) if "given-keys" in text]
    outer, inner = block.split("      volumes:\n")
    added, volumes = yaml.safe_load(outer), yaml.safe_load(inner)
    [variable] = added["env"]
    [mount] = added["volumeMounts"]
    assert variable["name"] in ALWAYS_READ
    assert Path(variable["value"]).is_relative_to(mount["mountPath"])
    assert [volume["name"] for volume in volumes] == [mount["name"]]
    assert not {mount["name"]} & {volume["name"] for volume in pod()["volumes"]}


@pytest.mark.parametrize("text", list(configurations()), ids=["image", "kubernetes"])
def test_configuration(text: str, tmp_path: Path) -> None:
    """The configuration is accepted without a warning; only predictions and metrics can be reached from outside."""
    loaded = load(text, tmp_path)
    assert loaded.warnings == ()
    options = loaded.options
    assert not options.disable_token_authorization
    assert options.management_address.host == "127.0.0.1"
    assert dict(options.grpc_listeners)["grpc_management_address"].host == "127.0.0.1"
    listeners = dict((*options.http_listeners, *options.grpc_listeners))
    for port in container()["ports"]:
        address = listeners[f"{port['name'].replace('-', '_')}_address"]
        assert (address.host, address.port) == ("0.0.0.0", port["containerPort"])
    assert is_mounted(options.token_key_file)


def test_probes() -> None:
    """The probes ask what answers them without a key, on a port that is there."""
    names = {port["name"] for port in container()["ports"]}
    with MemoryServer() as server:
        for probe in PROBES:
            asked = container()[probe]["httpGet"]
            assert asked["port"] in names
            assert server.request("GET", asked["path"]).status == 200
    assert container()["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container()["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_grace(tmp_path: Path) -> None:
    """A pod is not killed while its server may still be finishing."""
    options = load(manifest("ConfigMap")["data"]["config.properties"], tmp_path).options
    command = " ".join(container()["lifecycle"]["preStop"]["exec"]["command"])
    [hook] = re.findall(r"sleep\((\d+)\)", command)
    assert int(hook) > 0
    longest = int(hook) + options.shutdown_delay + options.shutdown_timeout + STOP_MARGIN
    assert pod()["terminationGracePeriodSeconds"] > longest


def test_confinement() -> None:
    """The pod runs as nobody in particular, with a file system that it cannot write to but where it must."""
    context = container()["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    assert is_mounted(Path("/tmp/x"))
    assert not is_mounted(Path("/models/m.mar"))
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container()["volumeMounts"]}
    # The keys are never on a disk.
    assert volumes["keys"]["emptyDir"]["medium"] == "Memory"
    assert volumes["config"]["configMap"]["name"] == manifest("ConfigMap")["metadata"]["name"]


def test_ports() -> None:
    """Service and network policy name ports of the container, and management is not among them."""
    names = {port["name"] for port in container()["ports"]}
    assert {port["targetPort"] for port in manifest("Service")["spec"]["ports"]} <= names
    rules = manifest("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} <= names
    assert "management" not in names


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile: each instruction with its arguments, continued lines joined."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_dockerfile() -> None:
    """The image runs as the user that the pod has, writes where the pod has volumes, and stops by SIGTERM."""
    said = dict(instructions())
    user = pod()["securityContext"]
    assert said["USER"] == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert is_mounted(Path(said["WORKDIR"]) / "logs")
    assert said["EXPOSE"].split() == [str(port["containerPort"]) for port in container()["ports"]]
    assert "/livez" in said["HEALTHCHECK"]
    order = [word for word, _ in instructions()]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_context() -> None:
    """All that the build needs is in its context, which is a list of what may be in it."""
    root = DEPLOY.parent
    ignored, *kept = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored == "*"
    names = {name.removeprefix("!") for name in kept if name.startswith("!")}
    assert all((root / name).exists() for name in names)
    assert {"constraints.txt", "deploy/config.properties", "pyproject.toml", "setup.cfg", "README.md"} <= names
    assert {"twisted", "twisted_serve", "LICENSE"} <= names
