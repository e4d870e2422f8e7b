"""``marquee archive``, ``inspect`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from archiver.cli.options import (
    Archive,
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


def archive_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint directory, a GGUF file, or an id on the Hugging Face hub.")],
    name: Name = None,
    version: Version = "1.0",
    handler: Handler = None,
    extra: Extra = None,
    requirements: Requirements = None,
    config: Config = None,
    format: Annotated[Literal["mar", "dir"], typer.Option(help="One file, or a directory that TorchServe need not unpack.")] = "mar",
    out: Annotated[Path, typer.Option(metavar="DIRECTORY", help="The model store to write to.")] = Path("model_store"),
    gpu: Gpu = None,
    count: Count = None,
    auto: Auto = False,
    plan: PlanFile = None,
    no_plan: NoPlan = False,
    speculate: Speculate = None,
    compile: Annotated[bool, typer.Option("--compile", help="Put in the decode step, compiled for machines like this one.")] = False,
    accept_rejected: Annotated[bool, typer.Option("--accept-rejected", help="Package it though quantizing exceeded its budget.")] = False,
    revision: Revision = None,
) -> None:
    """Package a checkpoint as an archive for TorchServe, with the configuration of a plan and the plan itself.

    Example: marquee archive ./my-model --name bot --handler my_handler.py
    """
    from archiver.deploy.prepare import model_name_from
    from archiver.display import byte_progress, stage_progress
    from archiver.errors import UsageError
    from archiver.package import ArchiveSpec, build_archive, resolve_model
    from archiver.package.compilation import with_compiled_step
    from archiver.package.draft_model import speculation_settings
    from archiver.plan.archived import PlanChoice, with_plan
    from archiver.plan.target import TargetOptions

    source = resolve_model(model, revision=revision)
    if source.kind == "archive":
        raise UsageError(f"{model} is an archive already: serve it, or look into it with `marquee inspect`")
    name = name or model_name_from(source.name)
    settings, draft_model = speculation_settings(speculate)
    spec = ArchiveSpec(
        source.path, name, version, handler, tuple(extra or ()), requirements, config,
        settings=settings, draft_model=draft_model, format=format, out=out, accept_rejected=accept_rejected,
    )  # fmt: skip
    spec = with_plan(spec, PlanChoice(TargetOptions(gpu=gpu, count=count, auto=auto), plan, not no_plan))
    if compile:
        with stage_progress() as stages:
            spec = with_compiled_step(spec, stages)
    with byte_progress(f"writing {spec.target}") as progress:
        typer.echo(build_archive(spec, progress=progress))


def inspect_command(archive: Archive, as_json: AsJson = False) -> None:
    """Show what is in an archive, without unpacking or running it.

    Example: marquee inspect model_store/bot.mar --json
    """
    from archiver.display import show_archive, show_json
    from archiver.package import inspect_archive

    info = inspect_archive(archive)
    if as_json:
        show_json(info.to_dict())
    else:
        show_archive(info)


def verify_command(archive: Archive, as_json: AsJson = False) -> None:
    """Check an archive's form, and every member against its hash. Exit code 1 if anything is wrong.

    Example: marquee verify model_store/bot.mar
    """
    from archiver.display import byte_progress, show_json, show_verification
    from archiver.package import verify_archive

    with byte_progress(f"verifying {archive}") as progress:
        report = verify_archive(archive, progress=progress)
    if as_json:
        show_json(report.to_dict())
    else:
        show_verification(report)
    raise typer.Exit(0 if report.ok else 1)
