"""What is wrong with a manifest: by Kubernetes' schemas, the operator's types, PodSecurity, and the program itself."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import kubernetes_validate
from cloudcoil.models.prometheus_operator import v1 as operator
from kubetools import ROOT
from pydantic import ValidationError

EXPORTER = Path(os.environ.get("EXPORTER", ROOT / "target" / "debug" / "cloudtrail-tls-exporter"))
# The oldest with native sidecars, one between, the newest that is known.
VERSIONS = ("1.29", "1.33", "1.37")
OPERATOR = "monitoring.coreos.com/v1"
# `kubectl apply` keeps a copy of an object in an annotation, and annotations end here.
LARGEST = 262_144
# Pod Security Standards, restricted: https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def title(manifest: dict) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def find(manifests: list[dict], kind: str, name: str | None = None) -> dict:
    """The one object of this kind, and of this name."""
    found = [one for one in manifests if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def pod(manifests: list[dict]) -> dict:
    return find(manifests, "Deployment")["spec"]["template"]["spec"]


def containers(spec: dict) -> list[dict]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def is_exporter(container: dict) -> bool:
    return "cloudtrail-tls-exporter" in container["image"]


def exporter(spec: dict) -> dict:
    """The container of this exporter, known by its image."""
    (container,) = filter(is_exporter, containers(spec))
    return container


def schema_problems(manifest: dict) -> list[str]:
    """By the schemas of Kubernetes in each of `VERSIONS`, or the operator's types; unknown keys too."""
    if manifest["apiVersion"] == OPERATOR:
        return type_problems(manifest)
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"{version}: {getattr(error, 'message', error)}")
    return found


def type_problems(manifest: dict) -> list[str]:
    try:
        model = getattr(operator, manifest["kind"]).model_validate(manifest)
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    known = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
    return [f"{path}: no such key" for path in lost(manifest, known, "")]


def lost(before: object, after: object, path: str) -> Iterator[str]:
    """Keys that are in one and not in the other."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}[{index}]")


def restricted_problems(spec: dict) -> list[str]:
    """What PodSecurity `restricted` forbids; of the exporter also a root that can be written."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    for volume in spec.get("volumes", []):
        found += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    of_pod = spec.get("securityContext", {})
    for container in containers(spec):
        of_container = container.get("securityContext", {})
        context = {**of_pod, **of_container}
        capabilities = of_container.get("capabilities", {})
        sound = {
            "privileged": not of_container.get("privileged"),
            "allowPrivilegeEscalation": of_container.get("allowPrivilegeEscalation") is False,
            "capabilities.drop": "ALL" in capabilities.get("drop", []),
            "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser": context.get("runAsUser") != 0,
            "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "procMount": of_container.get("procMount", "Default") == "Default",
            "readOnlyRootFilesystem": of_container.get("readOnlyRootFilesystem") or not is_exporter(container),
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [f"container {container['name']}: {what}" for what, is_sound in sound.items() if not is_sound]
    return found


def size_problems(manifest: dict) -> list[str]:
    size = sum(len(text.encode()) for text in manifest.get("data", {}).values())
    return [f"{size} bytes"] if size > LARGEST * 3 / 4 else []


@cache
def flags() -> set[str]:
    shown = subprocess.run([EXPORTER, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z.-]+", shown))


def unknown_flags(text: str) -> set[str]:
    """Flags in the manner of Prometheus that a text names and the program does not have."""
    return set(re.findall(r"--(?:config|web|probe|log|state)\.[a-z.-]*[a-z]", text)) - flags()


def environment(container: dict) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}


def config_problems(config: str, variables: dict[str, str]) -> str:
    """What `check-config` says of a configuration and the environment; empty if nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config)
        file.flush()
        command = [EXPORTER, "check-config", f"--config.file={file.name}"]
        ended = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    return "" if ended.returncode == 0 else ended.stderr


def problems(manifests: list[dict]) -> list[str]:
    """All of the above, but what depends on more than one object: names that do not meet."""
    found = []
    for one in manifests:
        found += [f"{title(one)}: {problem}" for problem in [*schema_problems(one), *size_problems(one)]]
        if one["kind"] == "Deployment":
            found += [f"{title(one)}: {problem}" for problem in restricted_problems(one["spec"]["template"]["spec"])]
    return found + [f"link: {problem}" for problem in link_problems(manifests)]


def link_problems(manifests: list[dict]) -> list[str]:
    """Selectors, ports and mounts that name what is not there."""
    found = []
    deployment = find(manifests, "Deployment")
    spec, labels = pod(manifests), deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for container in containers(spec) for port in container.get("ports", [])}
    services = [one for one in manifests if one["kind"] == "Service"]

    def selects(selector: dict, those: dict) -> bool:
        return bool(selector) and selector.items() <= those.items()

    if not selects(deployment["spec"]["selector"]["matchLabels"], labels):
        found.append("Deployment selects no pod")
    for one in services:
        if not selects(one["spec"]["selector"], labels):
            found.append("Service selects no pod")
        found += [f"Service: port {p['targetPort']}" for p in one["spec"]["ports"] if p["targetPort"] not in ports]
    for one in manifests:
        if one["kind"] == "ServiceMonitor":
            chosen = [s for s in services if selects(one["spec"]["selector"]["matchLabels"], s["metadata"]["labels"])]
            offered = {port["name"] for service in chosen for port in service["spec"]["ports"]}
            found += [f"ServiceMonitor: {e['port']}" for e in one["spec"]["endpoints"] if e["port"] not in offered]
        if one["kind"] == "PodMonitor":
            if not selects(one["spec"]["selector"]["matchLabels"], labels):
                found.append("PodMonitor selects no pod")
            endpoints = one["spec"]["podMetricsEndpoints"]
            found += [f"PodMonitor: {e['port']}" for e in endpoints if e["port"] not in ports]
        if one["kind"] == "NetworkPolicy":
            if not selects(one["spec"]["podSelector"]["matchLabels"], labels):
                found.append("NetworkPolicy selects no pod")
            named = [port["port"] for rule in one["spec"]["ingress"] for port in rule["ports"]]
            found += [f"NetworkPolicy: {port}" for port in named if port not in ports]
            found += [f"NetworkPolicy without port {port}" for port in sorted(ports) if port not in named]
    claims = [volume["name"] for volume in spec.get("volumes", []) if "persistentVolumeClaim" in volume]
    context = spec.get("securityContext", {})
    group = exporter(spec).get("securityContext", {}).get("runAsGroup", context.get("runAsGroup"))
    if claims and (group is None or context.get("fsGroup") != group):
        found.append(f"claim of {' and '.join(claims)}: fsGroup is not runAsGroup")
    for container in containers(spec):
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        found += [f"mount {name}" for name in mounted - {volume["name"] for volume in spec.get("volumes", [])}]
        own = {port["name"] for port in container.get("ports", [])}
        probes = [container[key] for key in ("startupProbe", "livenessProbe", "readinessProbe") if key in container]
        found += [f"probe of port {p['httpGet']['port']}" for p in probes if p["httpGet"]["port"] not in own]
    return found


def absent(manifests: list[dict]) -> set[str]:
    """What the pod names and the manifests do not hold: the user's own, then."""
    spec = pod(manifests)
    named = {f"ServiceAccount/{spec['serviceAccountName']}"} if "serviceAccountName" in spec else set()
    for volume in spec.get("volumes", []):
        if "configMap" in volume:
            named.add(f"ConfigMap/{volume['configMap']['name']}")
        if "secret" in volume:
            named.add(f"Secret/{volume['secret']['secretName']}")
        if "persistentVolumeClaim" in volume:
            named.add(f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}")
    return named - {title(one) for one in manifests}
