"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODELS = "A checkpoint directory, a GGUF file, an archive, or an id on the Hugging Face hub; NAME=MODEL names it."
PLANNED = "A checkpoint directory, a config.json, a GGUF file, an archive, or an id on the Hugging Face hub."

Name = Annotated[str | None, typer.Option(help="The model's name in URLs; the checkpoint directory's by default.")]
Version = Annotated[str, typer.Option(help="The model's version in URLs.")]
Handler = Annotated[Path | None, typer.Option(metavar="FILE", help="A Python file with exactly one handler class.")]
Extra = Annotated[list[Path] | None, typer.Option(metavar="PATH", help="A file, or a directory whose content goes in. Repeatable.")]
Requirements = Annotated[Path | None, typer.Option(metavar="FILE", help="Packages for the handler, installed when it loads.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="A model-config.yaml to start from.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hugging Face hub.")]
Archive = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A .mar file or an archive directory.")]
Gpu = Annotated[str | None, typer.Option(help="Plan for such GPUs (h100, l4, …; or a YAML profile of your own), not for this machine.")]
Count = Annotated[int | None, typer.Option(help="How many GPUs.")]
Auto = Annotated[bool, typer.Option("--auto", help="Plan for what this machine has; the default.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", metavar="FILE", help="The plan.json of `marquee plan --out`.")]
NoPlan = Annotated[bool, typer.Option("--no-plan", help="Plan nothing, and take the defaults.")]
Speculate = Annotated[
    str | None,
    typer.Option(metavar="ngram|MODEL", help="Guess ahead: what came before, or what a smaller model says (a checkpoint directory)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a machine.")]
