"""``marquee serve``, and what it needs of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from archiver.cli.options import (
    MODELS,
    AsJson,
    Auto,
    Config,
    Count,
    Extra,
    Gpu,
    Handler,
    Name,
    NoPlan,
    PlanFile,
    Requirements,
    Revision,
    Speculate,
    Version,
)


def serve_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help=MODELS)],
    host: Annotated[str, typer.Option(help="Address of the inference API; beyond this machine requests need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Inference; the next four are management, metrics and gRPC. 0 finds free ones.")] = 8080,
    name: Name = None,
    ts_config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings to add to config.properties.")] = None,
    log_level: Annotated[Literal["debug", "info", "warn", "error"], typer.Option(help="How much TorchServe logs.")] = "warn",
    token_auth: Annotated[
        bool | None, typer.Option("--token-auth/--no-token-auth", help="Ask each request for a key.", show_default="beyond this machine")
    ] = None,
    expose_metrics: Annotated[
        str, typer.Option(metavar="HOST", help="Address of the metrics: whoever reaches it reads them, without a key.")
    ] = "127.0.0.1",
    expose_management: Annotated[
        str, typer.Option(metavar="HOST", help="Address of the management API: whoever reaches it and has its key rules the server.")
    ] = "127.0.0.1",
    model_api: Annotated[bool, typer.Option("--model-api", help="Let the management API register and remove models.")] = False,
    drain_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long requests may go on once told to stop.")] = 30.0,
    version: Version = "1.0",
    handler: Handler = None,
    extra: Extra = None,
    requirements: Requirements = None,
    config: Config = None,
    gpu: Gpu = None,
    count: Count = None,
    auto: Auto = False,
    plan: PlanFile = None,
    no_plan: NoPlan = False,
    speculate: Speculate = None,
    revision: Revision = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready, for a machine.")] = False,
) -> None:
    """Serve models until Ctrl-C; checkpoints are packaged first, once.

    Example: marquee serve ./my-model --port 9080
    """
    from archiver.deploy.prepare import PackagingOptions
    from archiver.deploy.properties import read_properties
    from archiver.deploy.serve import ServeRequest, serve
    from archiver.deploy.settings import ServerSettings
    from archiver.package.draft_model import speculation_settings
    from archiver.plan.archived import PlanChoice
    from archiver.plan.target import TargetOptions

    settings = ServerSettings(
        host=host,
        token_auth=token_auth,
        log_level=log_level,
        properties=read_properties(ts_config) if ts_config else {},
        management_host=expose_management,
        metrics_host=expose_metrics,
        model_api=model_api,
        drain_timeout_s=drain_timeout,
    )
    choice = PlanChoice(TargetOptions(gpu=gpu, count=count, auto=auto), plan, not no_plan)
    speculation, draft_model = speculation_settings(speculate)
    packaging = PackagingOptions(version, handler, tuple(extra or ()), requirements, config, speculation, choice, draft_model)
    serve(ServeRequest(models, name, revision, port, settings, packaging), as_json=as_json)


def doctor_command(as_json: AsJson = False) -> None:
    """Say what this machine can run: packages, devices, and every quantization format with what it lacks.

    Example: marquee doctor --json
    """
    from archiver.deploy.doctor import examine, show_findings

    show_findings(examine(), as_json=as_json)


def java_home_command() -> None:
    """Print the Java that TorchServe can run on, for the stock way to start it.

    Example: export JAVA_HOME=$(marquee java-home)
    """
    from archiver.deploy.java import find_java_home

    typer.echo(find_java_home())
