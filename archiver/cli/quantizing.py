"""``marquee quantize``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from archiver.cli.options import AsJson, Revision


def quantize_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint directory, or an id on the Hugging Face hub.")] = "",
    recipe: Annotated[
        list[str], typer.Option("--recipe", "-r", help="A recipe's name (see --list), or a YAML file. Repeatable with --compare.")
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Where the result goes; MODEL-RECIPE by default.")] = None,
    calibration: Annotated[Path | None, typer.Option(metavar="FILE", help="JSONL (text or messages) or plain text.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Calibration samples at most.")] = 256,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of a calibration sample at most.")] = 2048,
    evaluation: Annotated[Path | None, typer.Option(metavar="FILE", help="Held-out text to measure the quality on.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts for the greedy comparison, one a line.")] = None,
    budget: Annotated[str | None, typer.Option(help="Limits, as kl=0.05,ppl=1.05,top1=0.9; exceeded: exit code 1.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Try several recipes, and print a table.")] = False,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Do not measure the quality.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes and leave.")] = False,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Quantize a checkpoint, and measure what quality that costs.

    Example: marquee quantize ./my-model --recipe gptq-int4 --calibration chats.jsonl --budget kl=0.05
    """
    from archiver.errors import UsageError
    from archiver.quantize.budget import parse_budget
    from archiver.quantize.request import QuantizeRequest

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half done is cleared away, as after Ctrl-C

    if list_recipes:
        from archiver.quantize.display import show_recipes

        show_recipes(as_json=as_json)
        return
    if not model:
        raise UsageError("say which MODEL to quantize; --list shows the recipes")
    request = QuantizeRequest(
        model=model,
        recipes=tuple(recipe),
        out=out,
        calibration=calibration,
        num_samples=samples,
        max_length=max_length,
        evaluation=evaluation,
        prompts=prompts,
        budget=parse_budget(budget),
        measure=not no_measure,
        force=force,
        revision=revision,
    )
    if compare:
        from archiver.quantize.compare import compare_recipes

        compare_recipes(request, as_json=as_json)
        return
    from archiver.quantize.command import quantize

    raise typer.Exit(0 if quantize(request, as_json=as_json).is_accepted else 1)
