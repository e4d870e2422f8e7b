"""``marquee plan``: what the user asked for becomes a request, and the plan what he reads, files or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console

from archiver.configuration import config_path
from archiver.deploy.properties import read_properties
from archiver.errors import UsageError
from archiver.package.model_config import handler_config, load_model_config
from archiver.package.staging import staged_file
from archiver.plan.chart import draw_plan
from archiver.plan.configuration import model_config, render_properties, server_properties
from archiver.plan.engines import VLLM, Engine, KvDtype, own_engine
from archiver.plan.hardware.profile import Hardware
from archiver.plan.layout import Layout
from archiver.plan.model.facts import ModelFacts
from archiver.plan.model.source import read_model
from archiver.plan.model.storage import requantize
from archiver.plan.peer_deployment import deployment_of
from archiver.plan.peers.catalogue import render_all
from archiver.plan.peers.rendering import Rendering
from archiver.plan.plan import Plan, make_plan
from archiver.plan.replay import replay, show_outcomes
from archiver.plan.report import show_peers, show_plan
from archiver.plan.request import PlanRequest
from archiver.plan.simulation.trace import read_trace
from archiver.plan.target import OnStage, TargetOptions, as_loaded, find_target
from archiver.plan.workload import Workload
from handlers.memory_ledger import PLAN_FILE
from handlers.quant.formats import FORMATS, Format


@dataclass(frozen=True)
class PlanOptions:
    """What the user said, on a command line or in another command's stead.

    ``config``: a model-config.yaml whose ``handler.engine`` the plan keeps to; ``settings`` go before it.
    """

    model: str
    revision: str | None = None
    target: TargetOptions = TargetOptions()
    workload: Workload = Workload()
    has_stated_load: bool = False
    dtype: str | None = None
    recipe: str | None = None
    kv_dtype: KvDtype = "auto"
    engine: Literal["marquee", "vllm"] | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    config: Path | None = None
    settings: Mapping[str, Any] | None = None
    has_own_code: bool = False
    has_other_models: bool = False


@dataclass(frozen=True)
class Output:
    """Where a plan goes besides the terminal: a picture, a directory of files, other servers' flags, a replayed trace."""

    as_json: bool = False
    chart: Path | None = None
    out: Path | None = None
    with_peers: bool = False
    trace: Path | None = None
    points: Path | None = None


def plan_for(options: PlanOptions, on_stage: OnStage = lambda stage, done, total: None) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan, and warnings about the machine; raises UsageError, in one line, for what cannot be planned."""
    target = find_target(options.target, on_stage)
    if options.kv_dtype == "fp8" and target.hardware.device == "cpu":
        raise UsageError("--kv-dtype fp8 is for GPUs: leave it out, or name one with --gpu")
    model = as_loaded(_requantized(read_model(options.model, revision=options.revision), options.recipe), target.hardware, options.dtype)
    settings = _engine_settings(options)
    longest = settings.get("max_model_len", model.max_model_len)
    if model.max_model_len is not None and longest > model.max_model_len:
        raise UsageError(f"max_model_len is {longest:,}, and {model.name} takes sequences of at most {model.max_model_len:,} tokens")
    request = PlanRequest(
        model=model,
        hardware=target.hardware,
        count=target.count,
        workload=options.workload.within(longest),
        settings=settings,
        kv_dtype=options.kv_dtype,
        engine=_engine(options, target.hardware),
        layout=_layout(options, target.count),
        has_own_code=options.has_own_code,
        has_other_models=options.has_other_models,
        has_stated_load=options.has_stated_load,
    )
    return make_plan(request), target.warnings


def show(plan: Plan, options: PlanOptions, output: Output) -> None:
    """Write what was asked for, then print the report or JSON."""
    if output.chart:
        draw_plan(plan, output.chart)
    renderings = _peers(plan, options) if output.with_peers or output.out else {}
    if output.out:
        write_files(plan, renderings, output.out)
    outcomes = replay(plan, read_trace(output.trace), output.points) if output.trace else {}
    if output.as_json:
        simulated = {name: outcome.to_dict() for name, outcome in outcomes.items()}
        peers = {name: _rendering(each) for name, each in renderings.items()} if output.with_peers else {}
        Console().out(json.dumps(plan.to_dict() | {"simulation": simulated, "peers": peers}, indent=2), highlight=False)
        return
    console = Console()
    show_plan(plan, console)
    if outcomes:
        show_outcomes(outcomes, console)
    if output.with_peers and not renderings:
        console.print("No other server's flags would make it fit, or it keeps no keys and values that they could be about.")
    elif output.with_peers:
        show_peers(renderings, console)


def write_files(plan: Plan, renderings: Mapping[str, Rendering], directory: Path) -> None:
    """Write plan.json, model-config.yaml, config.properties and peers.sh into ``directory``, each whole or not at all.

    For a rate that was stated there is also static-model-config.yaml, for handlers that leave batches to TorchServe.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shipped = read_properties(config_path("config.properties"))
    planned = server_properties(plan.option)
    log4j = next(word for word in shipped["vmargs"].split() if word.startswith("-Dlog4j"))
    properties = shipped | planned | {"vmargs": f"{planned['vmargs']} {log4j}"}
    files = {
        PLAN_FILE: plan.to_json(),
        "model-config.yaml": _yaml(plan, model_config(plan.option, None)),
        "config.properties": f"# {plan.verdict}\n{render_properties(properties)}".encode(),
        "peers.sh": "".join(_script(renderings)).encode(),
    }
    if plan.batching:
        files["static-model-config.yaml"] = _yaml(plan, model_config(plan.option, plan.batching))
    for name, content in files.items():
        with staged_file(directory / name) as file:
            file.write_bytes(content)


def _yaml(plan: Plan, content: Mapping[str, Any]) -> bytes:
    return f"# {plan.verdict}\n{yaml.safe_dump(dict(content), sort_keys=False)}".encode()


def _script(renderings: Mapping[str, Rendering]) -> Iterator[str]:
    for name, rendering in renderings.items():
        yield f"# {name}. Memory fraction: {rendering.fraction_meaning}\n"
        yield from (f"# {note}\n" for note in rendering.notes)
        for path, content in rendering.files.items():
            yield "".join(f"#   {line}\n" for line in [f"{path}:", *content.splitlines()])
        yield f"# {rendering.shell}\n\n"


def _peers(plan: Plan, options: PlanOptions) -> dict[str, Rendering]:
    try:
        return render_all(deployment_of(plan, options.model))
    except ValueError:  # it does not fit: there are no flags that would make it
        return {}


def _rendering(rendering: Rendering) -> dict[str, Any]:
    return {
        "command": list(rendering.command),
        "environment": dict(rendering.environment),
        "files": dict(rendering.files),
        "fraction": rendering.fraction,
        "fraction_meaning": rendering.fraction_meaning,
        "notes": list(rendering.notes),
    }


def _engine_settings(options: PlanOptions) -> Mapping[str, Any]:
    """Return what the user's model-config.yaml and command line say of ``handler.engine``; raises UsageError that names the key."""
    over = {"engine": dict(options.settings)} if options.settings else {}
    content = load_model_config(options.config, over)
    handler_config(content)
    settings = (content.get("handler") or {}).get("engine") or {}
    return {key: value for key, value in settings.items() if value is not None}


def _requantized(model: ModelFacts, recipe: str | None) -> ModelFacts:
    return model if recipe is None else requantize(model, _format(recipe))


def _format(recipe: str) -> Format:
    """Return what a recipe makes: by its name, without its variant."""
    by_recipe = {name.partition(":")[0]: row for row in FORMATS for name in (row.load_recipe, row.recipe) if name}
    row = by_recipe.get(recipe.partition(":")[0])
    if row is None:
        raise UsageError(f"no recipe named {recipe!r}; there are {', '.join(sorted(by_recipe))}")
    return row


def _engine(options: PlanOptions, hardware: Hardware) -> Engine | None:
    if options.engine is None:
        return None
    return own_engine(hardware) if options.engine == "marquee" else VLLM


def _layout(options: PlanOptions, count: int) -> Layout | None:
    if options.tensor_parallel is None and options.pipeline_parallel is None:
        return None
    tensor, pipeline = (1 if degree is None else degree for degree in (options.tensor_parallel, options.pipeline_parallel))
    if tensor < 1 or pipeline < 1 or count % (tensor * pipeline):
        raise UsageError(f"--tensor-parallel {tensor} × --pipeline-parallel {pipeline} does not divide {count} GPUs (--count)")
    return Layout(tensor, pipeline, count // (tensor * pipeline))
