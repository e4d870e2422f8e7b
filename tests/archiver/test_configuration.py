"""The shipped configuration data says what TorchServe understands and handlers report."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest
import yaml

from archiver.configuration import config_path
from archiver.deploy.command import torchserve_home
from archiver.deploy.properties import read_properties
from handlers.telemetry import METRICS


@pytest.fixture(scope="module")
def torchserve() -> Path:
    return torchserve_home()


def test_every_key_is_one_of_torchserves(torchserve):
    with zipfile.ZipFile(torchserve / "ts" / "frontend" / "model-server.jar") as jar:
        known = jar.read("org/pytorch/serve/util/ConfigManager.class")
    keys = read_properties(config_path("config.properties")).keys() - {"vmargs"}  # that one is the launcher's
    assert [key for key in keys if key.encode() not in known] == []


def test_all_addresses_are_loopback():
    properties = read_properties(config_path("config.properties"))
    assert all("127.0.0.1" in value for key, value in properties.items() if key.endswith("_address"))
    assert properties["enable_model_api"] == "false"


def test_metrics_are_torchserves_own_and_more(torchserve):
    ours = yaml.safe_load(config_path("metrics.yaml").read_text())
    theirs = yaml.safe_load((torchserve / "ts" / "configs" / "metrics.yaml").read_text())
    assert ours["ts_metrics"] == theirs["ts_metrics"]
    assert all(metric in ours["model_metrics"]["gauge"] for metric in theirs["model_metrics"]["gauge"])


def test_what_handlers_report_is_declared():
    declared = yaml.safe_load(config_path("metrics.yaml").read_text())["model_metrics"]
    ours = {
        (kind, metric["name"], metric["unit"], *metric["dimensions"])
        for kind, metrics in declared.items()
        for metric in metrics
        if metric["name"].startswith("marquee_")
    }
    assert ours == {(metric.kind, metric.name, metric.unit, "ModelName", "ModelVersion", *metric.labels) for metric in METRICS}


def test_metrics_load_in_a_worker():
    importlib.import_module("ts")
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

    cache = MetricsCacheYamlImpl(str(config_path("metrics.yaml")))
    cache.initialize_cache()
    assert "counter:marquee_requests_total" in cache.cache_keys()


def test_logging_is_quiet_and_in_the_instances_directory():
    root = ElementTree.parse(config_path("log4j2.xml")).getroot()
    properties = {element.get("name"): element.text for element in root.iter("Property")}
    assert properties["level"] == "${sys:marquee.log.level:-warn}"
    assert str(properties["file"]).startswith("${env:LOG_LOCATION:-logs}/")


def test_unknown_data_is_an_error():
    with pytest.raises(FileNotFoundError, match="no configuration data named 'nothing'"):
        config_path("nothing")
