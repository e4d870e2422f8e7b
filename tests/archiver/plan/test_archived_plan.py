"""Plans in archives: what goes in, what stays out and why, and that the bytes stay the same."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from archiver.errors import UsageError
from archiver.package import ArchiveSpec, build_archive, inspect_archive, verify_archive
from archiver.plan.archived import PlanChoice, with_plan
from archiver.plan.target import TargetOptions
from handlers.config import parse_handler_config
from handlers.memory_ledger import PLAN_FILE, read_memory_ledger

TINYCHAT = Path("examples/tinychat/model").resolve()
ON_H100 = PlanChoice(TargetOptions(gpu="h100"))


@pytest.fixture
def spec(tmp_path: Path) -> ArchiveSpec:
    return ArchiveSpec(TINYCHAT, "bot", format="dir", out=tmp_path)


def test_an_archive_carries_the_plan_that_it_was_configured_by(spec):
    archive = build_archive(with_plan(spec, ON_H100))
    ledger = read_memory_ledger(archive)
    assert ledger is not None
    assert (ledger.device, ledger.device_name) == ("cuda", "NVIDIA H100 SXM 80 GB")
    config = yaml.safe_load((archive / "model-config.yaml").read_text())
    plan = json.loads((archive / PLAN_FILE).read_text())
    assert parse_handler_config(config).engine.max_running == plan["sizes"]["max_running"] == 256
    assert (config["deviceType"], config["deviceIds"]) == ("gpu", [0])
    assert verify_archive(archive).ok
    assert inspect_archive(archive).planned_for == "1 × NVIDIA H100 SXM 80 GB"


def test_the_same_plan_gives_the_same_bytes(spec, tmp_path):
    first, second = with_plan(spec, PlanChoice()), with_plan(replace(spec, out=tmp_path / "elsewhere"), PlanChoice())
    assert first.plan is not None
    assert (first.plan, first.settings, first.frontend) == (second.plan, second.settings, second.frontend)


def test_the_users_settings_go_before_the_plans(spec, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("responseTimeout: 7\nhandler: {engine: {max_running: 3}}\n")
    archive = build_archive(with_plan(replace(spec, config=config), ON_H100))
    content = yaml.safe_load((archive / "model-config.yaml").read_text())
    assert content["responseTimeout"] == 7
    assert content["handler"]["engine"]["max_running"] == 3
    assert json.loads((archive / PLAN_FILE).read_text())["sizes"]["max_running"] == 3


def test_a_plan_made_before_is_taken(spec, tmp_path):
    made = with_plan(spec, ON_H100)
    file = tmp_path / "plan.json"
    file.write_bytes(made.plan or b"")
    taken = with_plan(spec, PlanChoice(file=file))
    assert (taken.plan, taken.settings, taken.frontend) == (made.plan, made.settings, made.frontend)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"model": {"architecture": "LlamaForCausalLM", "num_parameters": 5}},
            "is for a LlamaForCausalLM of 5 parameters, and model is a LlamaForCausalLM of 3,967,744",
        ),
        ({"engine": "vllm"}, "is for the engine vllm"),
        ({"schema": 99}, "is of another version of marquee"),
        ({"ledger": None, "settings": None}, None),
    ],
)
def test_a_plan_for_something_else_is_refused(spec, tmp_path, change, complaint):
    content = json.loads(with_plan(spec, ON_H100).plan or b"") | change
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(UsageError, match=complaint or "is no plan.json of `marquee plan --out`"):
        with_plan(spec, PlanChoice(file=file))


def test_a_plan_that_does_not_fit_is_refused_where_it_was_asked_for(spec, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("handler: {engine: {memory_fraction: 0.001}}\n")
    with pytest.raises(UsageError, match="won't fit: the model alone takes .* --no-plan packages it all the same"):
        with_plan(replace(spec, config=config), ON_H100)


def test_a_plan_that_nobody_asked_for_is_left_out_with_a_word(spec, tmp_path, caplog):
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    with caplog.at_level(logging.WARNING):
        assert with_plan(replace(spec, source=odd), PlanChoice()).plan is None
    assert "no plan goes into the archive" in caplog.text
    with pytest.raises(UsageError, match="hidden_size|config.json"):
        with_plan(replace(spec, source=odd), ON_H100)


def test_no_plan_is_none(spec):
    assert with_plan(spec, PlanChoice(is_wanted=False)) == spec


@pytest.mark.parametrize(
    "options",
    [{"is_wanted": False, "file": Path("plan.json")}, {"is_wanted": False, "target": TargetOptions(gpu="h100")},
     {"file": Path("plan.json"), "target": TargetOptions(auto=True)}],
)  # fmt: skip
def test_contradictions_are_refused(options):
    with pytest.raises(UsageError, match="leave --gpu, --count"):
        PlanChoice(**options)
