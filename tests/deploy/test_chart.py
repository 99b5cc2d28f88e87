"""The Helm chart, for both sets of values, against the schemas of the Kubernetes versions that it states."""

import re
from typing import Any

import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor
from helm import CHART, helm, render
from kubernetes_validate import ValidationError, validate
from prometheus_client import generate_latest
from pydantic import BaseModel

from draft_service.settings import DraftSettings
from gateway.generation.metrics import Meter
from gateway.settings import GatewaySettings
from gateway.web.access import OPEN
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.slots import Slots
from shared.settings import Settings
from shared.version import VERSION
from target_service.settings import TargetSettings

KUBERNETES = ("1.33", "1.37")
VALUES = ("values-kind.yaml", "values-trn2.yaml", "values-trn2-3xlarge.yaml")
CUSTOM: dict[str, type[BaseModel]] = {
    "ScaledObject": ScaledObject,
    "PodMonitor": PodMonitor,
}  # made from the operators' own definitions
SETTINGS: dict[str, type[Settings]] = {"gateway": GatewaySettings, "draft": DraftSettings, "target": TargetSettings}

Manifest = dict[str, Any]


@pytest.fixture(scope="module", params=VALUES)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Render a set of values."""
    return render(request.param, KUBERNETES[-1])


def check(manifest: Manifest, kubernetes: str) -> None:
    """Raise ValueError or ValidationError if the manifest does not conform, fields that nobody knows included."""
    custom = CUSTOM.get(manifest["kind"])
    if not custom:
        validate(manifest, kubernetes, strict=True)
    elif custom.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True) != manifest:
        raise ValueError(f"{manifest['kind']}: a field that its definition does not have")


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Return the manifests of a kind by their names."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


def containers(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the containers by their names."""
    pods = [deployment["spec"]["template"]["spec"] for deployment in of_kind(manifests, "Deployment").values()]
    return {container["name"]: container for pod in pods for container in pod["containers"]}


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("values", VALUES)
def test_every_manifest_conforms(values: str, kubernetes: str) -> None:
    """To the strict schemas of the oldest and the newest Kubernetes, and to the operators' own definitions."""
    manifests = render(values, kubernetes + ".0")
    assert len(manifests) == {"values-kind.yaml": 12, "values-trn2.yaml": 17, "values-trn2-3xlarge.yaml": 13}[values]
    for manifest in manifests:
        check(manifest, kubernetes)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "replica"), 2),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "readinessProbe", "grpc", "port"), "grpc"),
        ("ScaledObject", ("spec", "triggers", 0, "treshold"), "1"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "port"), 3),
    ],
)
def test_what_does_not_conform_is_found(kind: str, path: tuple[str | int, ...], value: object) -> None:
    """A field that does not exist, and one of the wrong type, in a core and in a custom resource."""
    manifest = next(manifest for manifest in render(VALUES[1], "1.37.0") if manifest["kind"] == kind)
    check(manifest, "1.37")
    part: Any = manifest
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises((ValueError, ValidationError)):
        check(manifest, "1.37")


def test_lint() -> None:
    """Helm finds nothing wrong with the chart, which is of this version."""
    helm("lint", "--strict", str(CHART))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == VERSION
    assert KUBERNETES[0] in chart["kubeVersion"]


def test_settings_exist(manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is a setting of its service, with a value that it takes."""
    monkeypatch.setattr("sys.argv", ["service"])
    for name, container in containers(manifests).items():
        values = {variable["name"]: variable["value"] for variable in container["env"]}
        ours = {key.removeprefix("OUTRIDER_").lower() for key in values if key.startswith("OUTRIDER_")}
        assert ours <= SETTINGS[name].model_fields.keys()
        with monkeypatch.context() as environment:
            for key, value in values.items():
                environment.setenv(key, value)
            SETTINGS[name]()


def test_services_find_each_other(manifests: list[Manifest]) -> None:
    """The gateway's addresses are headless services; names of ports, claims and selectors lead somewhere."""
    services, pods = of_kind(manifests, "Service"), of_kind(manifests, "Deployment")
    env = {variable["name"]: variable["value"] for variable in containers(manifests)["gateway"]["env"]}
    for half in ("draft", "target"):
        name, port = env[f"OUTRIDER_{half.upper()}"].removeprefix("dns:///").split(":")
        assert services[name]["spec"]["clusterIP"] == "None"
        assert services[name]["spec"]["ports"][0]["port"] == int(port)
    for name, deployment in pods.items():
        template = deployment["spec"]["template"]
        labels, (container,) = template["metadata"]["labels"], template["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert services[name]["spec"]["ports"][0]["targetPort"] in ports
        for kind, key in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
            assert of_kind(manifests, kind)[name]["spec"][key]["matchLabels"].items() <= labels.items()
        policy = of_kind(manifests, "NetworkPolicy")[name]["spec"]
        assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= ports
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_key_comes_from_a_secret() -> None:
    """The gateway alone has it, as a file and in no variable; the chart's other manifests are as without one."""
    flags = ("--set=apiKey.secret=keys,apiKey.key=main",)
    manifests = render("values-kind.yaml", "1.37.0", *flags)
    for manifest in manifests:
        check(manifest, "1.37")
    for name, deployment in of_kind(manifests, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == volumes.keys()
        assert ("api-key" in volumes) == (name == "outrider-gateway")
        if name == "outrider-gateway":
            assert volumes["api-key"]["secret"] == {"secretName": "keys"}
            assert env["OUTRIDER_API_KEY_FILE"] == f"{mounts['api-key']}/main"


def test_probes() -> None:
    """The gateway is asked whether it can serve, which needs no key."""
    gateway = containers(render("values-kind.yaml", "1.37.0"))["gateway"]
    for probe in ("startupProbe", "readinessProbe"):
        assert gateway[probe]["httpGet"]["path"] == "/ready"
    assert "/ready" in OPEN


def test_drain_and_safety(manifests: list[Manifest]) -> None:
    """A pod has more time to end than its service takes to drain, runs as nobody, and writes only where it may."""
    for deployment in of_kind(manifests, "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        grace_seconds = float(env["OUTRIDER_GRACE_SECONDS"])
        assert pod["terminationGracePeriodSeconds"] >= grace_seconds + sleep + 5
        assert ("command" in container) == ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT" in env)
        assert float(env.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "inf")) >= grace_seconds + 5
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_each_service_is_scaled_by_metrics_that_exist() -> None:
    """Every metric of a query is one that the service of its labels tells."""
    manifests = render("values-trn2.yaml", "1.37.0")
    engine = generate_latest(EngineMeter(Slots(1, 1, 1, 1)).registry).decode()
    told = {"gateway": Meter("m", lambda: 0, lambda: 0).exposition().decode(), "draft": engine, "target": engine}
    scaled = of_kind(manifests, "ScaledObject")
    assert scaled.keys() == of_kind(manifests, "Deployment").keys()
    seen: set[tuple[str, str]] = set()
    for name, manifest in scaled.items():
        assert manifest["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in of_kind(manifests, "Deployment")[name]["spec"]
        for trigger in manifest["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            (half,) = set(re.findall(r'component="(\w+)"', query))
            assert name == f"outrider-{half}"
            metrics = re.findall(r"outrider_\w+(?={)", query)
            for metric in metrics:
                assert f"\n{metric}{{" in told[half] or f"\n{metric} " in told[half]
            seen.update((half, metric) for metric in metrics)
            assert float(trigger["metadata"]["threshold"]) > 0
    assert seen == {
        ("gateway", "outrider_streams"),
        ("draft", "outrider_busy_seconds_total"),
        ("draft", "outrider_queue_seconds_bucket"),
        ("target", "outrider_slots_in_use"),
        ("target", "outrider_sessions_waiting"),
        ("target", "outrider_queue_seconds_bucket"),
    }


def test_trn2_asks_for_neuron_cores() -> None:
    """Target and draft have cores of their own, one a rank, time to compile, and one cache of what was compiled."""
    manifests = render("values-trn2.yaml", "1.37.0")
    command = " ".join(containers(manifests)["target"]["command"])
    assert command == "python -m torch.distributed.run --standalone --nproc-per-node=8 -m target_service"
    assert "command" not in containers(manifests)["draft"]
    cores = {
        name: container["resources"]["limits"].get("aws.amazon.com/neuroncore")
        for name, container in containers(manifests).items()
    }
    assert cores == {"gateway": None, "draft": 1, "target": 8}
    for name in ("draft", "target"):
        container = containers(manifests)[name]
        assert container["startupProbe"]["failureThreshold"] * 10 >= 4.75 * 3600
        cache = next(mount for mount in container["volumeMounts"] if mount["name"] == "compile-cache")
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        assert env["TORCH_NEURONX_NEFF_CACHE_DIR"].startswith(cache["mountPath"])
