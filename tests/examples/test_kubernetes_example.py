"""The Kubernetes manifests, held against the API's own schemas, against each other, and against our command line and metrics.

Kubernetes' objects are validated by the schemas that come with kubernetes-validate, custom resources by those in ``schemas/``: the fields
that the examples use and no others. Where there is a kubectl, what kustomize makes of the components is validated too, without a cluster.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import referencing
import yaml
from kubernetes_validate.utils import schema_contents
from typer.main import get_command

from archiver.cli import app
from archiver.deploy.guard import STOP_TIMEOUT_S

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
COMPONENTS = sorted(path.name for path in (FOLDER / "components").iterdir())
OLDEST = "1.30"  # the first where `lifecycle.preStop.sleep` is on; of image volumes it is 1.31
NEWEST = kubernetes_validate.latest_version()

Object = dict[str, Any]


def read(path: Path | str) -> list[Object]:
    return list(yaml.safe_load_all((FOLDER / path).read_text()))


def kustomizations() -> list[Path]:
    return sorted(FOLDER.rglob("kustomization.yaml"))


def complete_files() -> list[Path]:
    """Return the files with whole objects: all but kustomizations and the patches that they name."""
    patches = {file.parent / patch["path"] for file in kustomizations() for patch in read(file)[0].get("patches", [])}
    return sorted(set(FOLDER.rglob("*.yaml")) - patches - set(kustomizations()))


def validate(manifest: Object, version: str) -> None:
    own = SCHEMAS / f"{manifest['kind'].lower()}.yaml"
    if not own.exists():
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    # They refer to Kubernetes' own definitions, of containers say.
    definitions = schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    registry: Any = referencing.Resource.from_contents(definitions) @ referencing.Registry()
    jsonschema.Draft202012Validator(yaml.safe_load(own.read_text()), registry=registry).validate(manifest)


def containers(manifest: Object) -> Iterator[Object]:
    spec = manifest.get("spec", {})
    yield from spec.get("template", {}).get("spec", spec).get("containers", [])


@pytest.fixture(scope="module")
def objects() -> dict[str, Object]:
    """Every object of every file, by ``Kind/name``."""
    return {f"{each['kind']}/{each['metadata']['name']}": each for file in complete_files() for each in read(file)}


@pytest.fixture(scope="module")
def deployment(objects: dict[str, Object]) -> Object:
    return objects["Deployment/tinychat"]


@pytest.fixture(scope="module")
def pod(deployment: Object) -> Object:
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: Object) -> Object:
    (only,) = pod["containers"]
    return only


@pytest.mark.parametrize("path", complete_files(), ids=lambda path: path.stem)
@pytest.mark.parametrize("version", [f"{OLDEST}.0", NEWEST])
def test_objects_are_what_their_api_takes(path, version):
    for manifest in read(path):
        validate(manifest, version)


def test_a_misspelt_field_is_found(deployment, objects):
    wrong = yaml.safe_load(yaml.safe_dump(deployment).replace("terminationGracePeriodSeconds", "terminationGracePeriod"))
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong, NEWEST)
    wrong = yaml.safe_load(yaml.safe_dump(objects["ServingRuntime/marquee"]).replace("containerPort", "port"))
    with pytest.raises(jsonschema.ValidationError):
        validate(wrong, NEWEST)


@pytest.mark.parametrize("path", kustomizations(), ids=lambda path: path.parent.name)
def test_kustomizations_name_files_that_exist(path):
    (kustomization,) = read(path)
    named = [*kustomization.get("resources", []), *(patch["path"] for patch in kustomization.get("patches", []))]
    named += re.findall(r"# - (components/\S+)", path.read_text())
    assert named
    assert not [name for name in named if not (path.parent / name).exists()]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl, whose kustomize puts components together")
@pytest.mark.parametrize("chosen", [[], *([name] for name in COMPONENTS), ["podmonitor", "keda", "image-volume", "gpu"]], ids=" ".join)
def test_components_fit_the_base(chosen, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")  # kustomize takes relative paths only
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("components: []", f"components: [{', '.join(f'components/{name}' for name in chosen)}]"))
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = [each for each in yaml.safe_load_all(done.stdout) if each]
    for manifest in rendered:
        validate(manifest, NEWEST)

    (deployment,) = (each for each in rendered if each["kind"] == "Deployment")
    (container,) = containers(deployment)
    assert container["image"] == "registry.example.com/marquee:0.1.0" + ("-cuda" if "gpu" in chosen else "")
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == ("gpu" in chosen)
    assert ("replicas" in deployment["spec"]) == (not {"keda", "hpa"} & set(chosen))
    models = next(volume for volume in deployment["spec"]["template"]["spec"]["volumes"] if volume["name"] == "models")
    assert set(models) == {"name", "image" if "image-volume" in chosen else "persistentVolumeClaim"}
    assert any(each["kind"] == "PersistentVolumeClaim" for each in rendered) == ("image-volume" not in chosen)


def test_selectors_find_the_pods(objects, deployment):
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        objects["Service/tinychat"]["spec"]["selector"],
        objects["PodDisruptionBudget/tinychat"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy/marquee"]["spec"]["podSelector"]["matchLabels"],
        objects["PodMonitor/marquee"]["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector.items() <= labels


def test_the_network_policy_finds_kserves_pods_too(objects):
    """KServe gives a predictor's pods its ``labels``, and opens the ports of the runtime that it names."""
    policy = objects["NetworkPolicy/marquee"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= objects["InferenceService/tinychat"]["spec"]["predictor"]["labels"].items()
    (container,) = containers(objects["ServingRuntime/marquee"])
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= {port["name"] for port in container["ports"]}
    service = objects["Service/tinychat"]["spec"]["selector"]
    assert not service.items() <= objects["InferenceService/tinychat"]["spec"]["predictor"]["labels"].items(), "it is another's"


def test_everything_is_in_one_namespace(objects):
    assert {each["metadata"].get("namespace", "marquee") for each in objects.values()} == {"marquee"}


def test_names_lead_to_what_they_mean(objects, pod, container):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "metrics": 8082}
    probes = [container[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    allowed = [port["port"] for rule in objects["NetworkPolicy/marquee"]["spec"]["ingress"] for port in rule["ports"]]
    scraped = [endpoint["port"] for endpoint in objects["PodMonitor/marquee"]["spec"]["podMetricsEndpoints"]]
    served = [port["targetPort"] for port in objects["Service/tinychat"]["spec"]["ports"]]
    assert {*probes, *allowed, *scraped, *served} <= ports.keys()
    assert "management" not in ports  # it stays on loopback

    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    claims = [volumes["models"], *objects["Pod/model-loader"]["spec"]["volumes"]]
    for claim in (each["persistentVolumeClaim"]["claimName"] for each in claims if "persistentVolumeClaim" in each):
        assert f"PersistentVolumeClaim/{claim}" in objects
    for scaler in ("ScaledObject/tinychat", "HorizontalPodAutoscaler/tinychat"):
        assert f"Deployment/{objects[scaler]['spec']['scaleTargetRef']['name']}" in objects
    runtime = objects["InferenceService/tinychat"]["spec"]["predictor"]["model"]["runtime"]
    assert f"ServingRuntime/{runtime}" in objects


def test_arguments_are_those_of_our_command_line(objects):
    command = get_command(app)
    served = [each for manifest in objects.values() for each in containers(manifest) if "args" in each]
    assert len(served) == 2
    for container in served:
        name, *arguments = container["args"]
        context = command.commands[name].make_context(name, arguments)
        assert context.params["host"] == context.params["expose_metrics"] == "0.0.0.0"
        assert context.params["expose_management"] == "127.0.0.1"
        assert context.params["token_auth"] is False
        assert context.params["port"] == 8080


@pytest.mark.parametrize("kind", ["Deployment/tinychat", "ServingRuntime/marquee"])
def test_probes_ask_the_model_that_is_served(objects, kind):
    (container,) = containers(objects[kind])
    name, path = container["args"][1].split("=")
    assert any(path.startswith(mount["mountPath"]) for mount in container["volumeMounts"]) or path == "/mnt/models"
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == f"/predictions/{name}/1.0/v1/models"


def test_engines_use_the_cores_that_are_requested(objects, container):
    """There is no limit to keep to; Kubernetes tells the container its own request, and that of a patched or a predictor's one, too."""
    (served,) = containers(objects["ServingRuntime/marquee"])
    predicted = served | {"resources": objects["InferenceService/tinychat"]["spec"]["predictor"]["model"]["resources"]}
    for each in (container, predicted):
        assert {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}} in each["env"]
        assert int(each["resources"]["requests"]["cpu"]) >= 1
        assert each["resources"]["limits"].keys() == {"memory"}


def test_there_is_time_to_drain(objects, pod, container):
    runtime = objects["ServingRuntime/marquee"]
    predictor = objects["InferenceService/tinychat"]["spec"]["predictor"]
    (served,) = containers(runtime)
    stops = [
        (pod, container, container["lifecycle"]["preStop"]["sleep"]["seconds"]),
        (predictor, served, int(served["lifecycle"]["preStop"]["exec"]["command"][1])),
    ]
    for spec, each, sleep_s in stops:
        (drain_s,) = re.findall(r"--drain-timeout=(\d+)", " ".join(each["args"]))
        assert spec["terminationGracePeriodSeconds"] > sleep_s + int(drain_s) + 2 * STOP_TIMEOUT_S  # the engine's end, and TorchServe's


def test_pods_have_no_rights_to_lose(objects):
    """What Pod Security's level "restricted" asks for, and a root file system that cannot be written."""
    template = objects["Deployment/tinychat"]["spec"]["template"]["spec"]
    loader = objects["Pod/model-loader"]["spec"]
    predictor = objects["InferenceService/tinychat"]["spec"]["predictor"]
    for spec in (template, loader, predictor):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*template["containers"], *loader["containers"], *objects["ServingRuntime/marquee"]["spec"]["containers"]):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert not container["image"].endswith(":latest")
        assert ":" in container["image"]


def test_autoscalers_read_metrics_that_exist(objects):
    declared = yaml.safe_load((ROOT / "config" / "metrics.yaml").read_text())["model_metrics"]
    known = {each["name"] for kind in ("counter", "gauge") for each in declared[kind]}
    known |= {f"{each['name']}_bucket" for each in declared["histogram"]}
    triggers = objects["ScaledObject/tinychat"]["spec"]["triggers"]
    used = {name for trigger in triggers for name in re.findall(r"marquee_\w+", trigger["metadata"]["query"])}
    used |= {each["pods"]["metric"]["name"] for each in objects["HorizontalPodAutoscaler/tinychat"]["spec"]["metrics"]}
    assert used
    assert used <= known
    assert {label for trigger in triggers for label in re.findall(r"(\w+)=\"tinychat\"", trigger["metadata"]["query"])} == {"ModelName"}
