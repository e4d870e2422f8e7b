"""Dashboard, alerts and provisioning: they fit each other, and every query asks for a metric that a server has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from archiver.configuration import config_path
from archiver.deploy.properties import read_properties
from handlers.telemetry import METRICS
from tests.promql import check_query, series_names

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
DASHBOARD = json.loads(config_path("grafana/marquee.json").read_text())


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def dashboard_queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]


def mounts(service: str) -> dict[str, Path]:
    """Return the files that a container sees, by their paths in it."""
    volumes = [volume.split(":") for volume in read("compose.yaml")["services"][service]["volumes"]]
    return {target: (FOLDER / source).resolve() for source, target, *_ in volumes if source.startswith(".")}


@pytest.mark.parametrize("query", sorted(set(dashboard_queries())))
def test_every_query_of_the_dashboard_names_what_there_is(query: str) -> None:
    check_query(query)
    assert '=~"$model"' in query or "Requests" in query, "TorchServe's responses alone know no model"


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_every_alert_names_what_there_is_and_says_what_to_do(rule: dict[str, Any]) -> None:
    check_query(rule["expr"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "description"}
    kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
        assert all(label in labels.split(", ") for labels in kept), f"the query does not keep {label}"


@pytest.mark.parametrize(
    "query",
    [
        "marquee_nothing_total",
        'rate(marquee_requests_total{state="ok"}[5m])',
        "sum by (Model) (marquee_engines)",
        "rate(marquee_request_seconds[5m])",
        "sum(marquee_engines",
    ],
)
def test_a_wrong_query_is_found(query: str) -> None:
    with pytest.raises(AssertionError):
        check_query(query)


def test_the_dashboard_shows_all_that_is_asked_of_a_server() -> None:
    shown = set().union(*map(series_names, dashboard_queries()))
    names = {name.removesuffix(suffix) for name in shown for suffix in ("_bucket", "_sum", "_count", "")}
    # from rates and counts
    derived = {
        "marquee_kv_usage_ratio",
        "marquee_prefix_hit_ratio",
        "marquee_draft_acceptance_ratio",
        "marquee_generated_tokens_per_second",
    }
    assert {metric.name for metric in METRICS} - names == derived


def test_the_dashboard_is_laid_out_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_takes_its_data_source_and_model_from_variables() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "model"]
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["model"]["definition"])
    assert match and match[2] == "ModelName"
    check_query(match[1])
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} and panel["description"]


def test_prometheus_scrapes_where_a_server_has_its_metrics() -> None:
    (job,) = read("prometheus.yml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert f"http://{target}" == read_properties(config_path("config.properties"))["metrics_address"]
    assert any(f'job="{job["job_name"]}"' in rule["expr"] for rule in alert_rules())


def test_containers_find_their_files_and_each_other_on_loopback() -> None:
    compose = read("compose.yaml")["services"]
    prometheus, grafana = mounts("prometheus"), mounts("grafana")
    assert all(file.exists() for file in (*prometheus.values(), *grafana.values()))
    options = dict(option.removeprefix("--").split("=", 1) for option in compose["prometheus"]["command"])
    assert prometheus[options["config.file"]] == FOLDER / "prometheus.yml"
    (rules,) = read("prometheus.yml")["rule_files"]
    assert prometheus[str(Path(options["config.file"]).with_name(rules))] == FOLDER / "alerts.yml"
    (source,) = read("grafana/datasources.yml")["datasources"]
    assert source["url"] == f"http://{options['web.listen-address']}"
    (provider,) = read("grafana/dashboards.yml")["providers"]
    assert grafana[provider["options"]["path"]] == config_path("grafana/marquee.json").resolve().parent
    environment = compose["grafana"]["environment"]
    home = Path(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (grafana[str(home.parent)] / home.name).exists()
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1" and options["web.listen-address"].startswith("127.0.0.1:")
    assert all(service["network_mode"] == "host" and "ports" not in service for service in compose.values())
    assert all(re.search(r":v?\d+\.\d+\.\d+$", service["image"]) for service in compose.values())


def test_the_readme_names_addresses_and_files_that_there_are() -> None:
    readme = (FOLDER / "README.md").read_text()
    environment = read("compose.yaml")["services"]["grafana"]["environment"]
    assert f"http://127.0.0.1:{environment['GF_SERVER_HTTP_PORT']}/d/{DASHBOARD['uid']}" in readme
    for link in re.findall(r"\]\(([^)]+)\)", readme):
        assert (FOLDER / link).exists(), link
