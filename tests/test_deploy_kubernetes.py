"""The manifests: what Kubernetes' own schemas and this project's rules ask of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from dpacc.cli.subcommands.launch_line import line_for
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import given_settings

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / "deploy/kubernetes/federation", ROOT / "deploy/kubernetes/training"]
_SCHEMAS = "1.31"  # the oldest version that is still served by clouds, and has all that is used
_TEMPLATES = ("Deployment", "StatefulSet", "Job")


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Every object of a folder, in the order of its kustomization."""
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        yield from yaml.safe_load_all((folder / name).read_text())


EVERYTHING = [each for folder in FOLDERS for each in documents(folder)]
PODS = [each for each in EVERYTHING if each["kind"] in _TEMPLATES]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [e for e in EVERYTHING if e["kind"] == kind and e["metadata"]["name"] == name]
    return found


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize(
    "document", EVERYTHING, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}"
)
def test_every_object_fits_the_published_schema(document: dict[str, Any]) -> None:
    """Strictly: a key that Kubernetes does not know is an error, and not ignored."""
    kubernetes_validate.validate(document, _SCHEMAS, strict=True)


def test_a_key_that_kubernetes_does_not_know_is_found() -> None:
    """The check above can fail."""
    wrong = {**named("Deployment", "server"), "speck": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, _SCHEMAS, strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_file_is_applied(folder: Path) -> None:
    """A manifest that no kustomization names would be forgotten."""
    named_there = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {*named_there, "kustomization.yaml"} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("workload", PODS, ids=lambda workload: workload["metadata"]["name"])
def test_every_pod_is_unprivileged(workload: dict[str, Any]) -> None:
    """Nobody's root, nothing to write but its volumes, no token of the cluster's."""
    pod, inside = workload["spec"]["template"]["spec"], container(workload)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert inside["resources"]["limits"]["memory"]
    mounts = {mount["name"]: mount for mount in inside["volumeMounts"]}
    assert mounts["scratch"]["mountPath"] == "/tmp"
    own = {"state", "ledger", "runs", "scratch", "shared-memory"}
    assert all(mount.get("readOnly") for name, mount in mounts.items() if name not in own)


@pytest.mark.parametrize("workload", PODS, ids=lambda workload: workload["metadata"]["name"])
def test_every_mount_has_its_volume_and_every_claim_is_there(workload: dict[str, Any]) -> None:
    """Names that do not meet leave a pod pending for ever."""
    spec = workload["spec"]
    templates = spec.get("volumeClaimTemplates", [])
    volumes = {v["name"]: v for v in spec["template"]["spec"].get("volumes", [])}
    names = {*volumes, *(each["metadata"]["name"] for each in templates)}
    assert {mount["name"] for mount in container(workload)["volumeMounts"]} == names
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            named("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


def test_the_servers_port_is_one_everywhere() -> None:
    """8443: where the image listens, what the service offers, and what policies let through."""
    service = named("Service", "server")["spec"]
    assert service["type"] == "LoadBalancer"
    (port,) = service["ports"]
    inside = container(named("Deployment", "server"))
    assert inside["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]
    assert f"EXPOSE {port['port']}" in (ROOT / "deploy/Dockerfile").read_text()
    (rule,) = named("NetworkPolicy", "server")["spec"]["ingress"]
    assert rule["ports"] == [{"port": port["port"]}]
    args = container(named("StatefulSet", "client"))["args"]
    assert f"--superlink=server:{port['port']}" in args


def test_a_client_has_a_key_and_a_ledger_of_its_own() -> None:
    """By the pod's name; nobody but the server's policy lets it speak to anybody."""
    client = named("StatefulSet", "client")
    args = " ".join(container(client)["args"])
    assert "/keys/$(CLIENT).key" in args
    assert "/keys/$(CLIENT).toml" in args
    (claim,) = client["spec"]["volumeClaimTemplates"]
    mounts = {m["name"]: m["mountPath"] for m in container(client)["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/srv/dpacc"
    kept = client["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert set(kept.values()) == {"Retain"}
    policy = named("NetworkPolicy", "client")["spec"]
    assert policy["policyTypes"] == ["Egress"]
    everything = named("NetworkPolicy", "nothing")["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_keys_are_secrets_that_the_group_alone_reads() -> None:
    """Never in a configuration map, an image or an argument."""
    for kind, name in (("Deployment", "server"), ("StatefulSet", "client")):
        volumes = named(kind, name)["spec"]["template"]["spec"]["volumes"]
        (keys,) = [volume for volume in volumes if volume["name"] == "keys"]
        assert keys["secret"]["defaultMode"] == 0o440
    assert "PRIVATE KEY" not in "".join(
        path.read_text() for path in (ROOT / "deploy").rglob("*") if path.is_file()
    )


def test_the_jobs_arguments_are_those_of_the_recipe() -> None:
    """As many processes as GPUs; a run that goes on; less patience than the pod's own."""
    job = named("Job", "train")
    inside = container(job)
    flag, launch, *settings = inside["args"]
    assert flag == "--launch"
    line = line_for(recipe="train", launch=launch.replace("$(MACHINE)", "0"), settings=settings)
    options = dict(zip(line[4::2], line[5::2], strict=False))
    machines = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == machines == int(options["--num_machines"])
    gpus = inside["resources"]["limits"]["nvidia.com/gpu"]
    assert int(options["--num_processes"]) == machines * gpus
    name, subdomain = options["--main_process_ip"].split(".")
    assert (name, subdomain) == ("train-0", job["spec"]["template"]["spec"]["subdomain"])
    named("Service", subdomain)
    told = given_settings(kind=TrainingConfig, arguments=[w for w in settings if "config" not in w])
    assert told == {"resume": "auto", "checkpoint_every": 50}
    patience = {each["name"]: each.get("value") for each in inside["env"]}
    grace = job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert int(str(patience["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])) < grace


def test_images_are_the_dockerfiles_and_of_this_version() -> None:
    """Every image that a manifest or compose names is a target, at the project's version."""
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deploy/Dockerfile").read_text(), re.M)
    version = re.search(r'__version__ = "(.+)"', (ROOT / "dpacc/__init__.py").read_text())
    assert version is not None
    for folder in FOLDERS:
        for image in yaml.safe_load((folder / "kustomization.yaml").read_text())["images"]:
            assert image["name"].removeprefix("dpacc-") in targets
            assert image["newTag"] == version[1]
    for workload in PODS:
        assert container(workload)["image"].removeprefix("dpacc-") in targets
