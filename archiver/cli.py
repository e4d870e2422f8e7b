"""The ``marquee`` command: arguments in, exit code out.

What a command does stands elsewhere and is imported when it runs, so that help is fast.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from typer.exceptions import TyperException

from archiver import __version__
from archiver.errors import ArchiverError

app = typer.Typer(
    name="marquee",
    help="Take a Hugging Face checkpoint to a verified TorchServe deployment.",
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 used wrongly. MARQUEE_DEBUG=1 shows tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_MODELS = "A checkpoint directory, a GGUF file, an archive, or an id on the Hugging Face hub; NAME=MODEL names it."

Name = Annotated[str | None, typer.Option(help="The model's name in URLs; the checkpoint directory's by default.")]
Version = Annotated[str, typer.Option(help="The model's version in URLs.")]
Handler = Annotated[Path | None, typer.Option(metavar="FILE", help="A Python file with exactly one handler class.")]
Extra = Annotated[list[Path] | None, typer.Option(metavar="PATH", help="A file, or a directory whose content goes in. Repeatable.")]
Requirements = Annotated[Path | None, typer.Option(metavar="FILE", help="Packages for the handler, installed when it loads.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="A model-config.yaml to start from.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hugging Face hub.")]
Archive = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A .mar file or an archive directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a machine.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"marquee {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", "-v", help="Log more, and show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)] = False,
) -> None:
    if debug:
        os.environ["MARQUEE_DEBUG"] = "1"
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.DEBUG if debug else logging.WARNING)
    if not debug:  # They complain about kernels that they were not built with, whenever they are imported.
        for library in ("torchao", "torch.utils._pytree"):
            logging.getLogger(library).setLevel(logging.ERROR)


@app.command("serve")
def serve_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help=_MODELS)],
    host: Annotated[str, typer.Option(help="Address of the inference API; any but this machine's own needs --token-auth.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Inference; the next four are management, metrics and gRPC. 0 finds free ones.")] = 8080,
    name: Name = None,
    ts_config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings to add to config.properties.")] = None,
    log_level: Annotated[Literal["debug", "info", "warn", "error"], typer.Option(help="How much TorchServe logs.")] = "warn",
    token_auth: Annotated[bool, typer.Option("--token-auth", help="Ask each request for a key.")] = False,
    version: Version = "1.0",
    handler: Handler = None,
    extra: Extra = None,
    requirements: Requirements = None,
    config: Config = None,
    revision: Revision = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready, for a machine.")] = False,
) -> None:
    """Serve models until Ctrl-C; checkpoints are packaged first, once.

    Example: marquee serve ./my-model --port 9080
    """
    from archiver.deploy.prepare import PackagingOptions
    from archiver.deploy.properties import ServerSettings, read_properties
    from archiver.deploy.serve import ServeRequest, serve

    settings = ServerSettings(host, token_auth, log_level, read_properties(ts_config) if ts_config else {})
    packaging = PackagingOptions(version, handler, tuple(extra or ()), requirements, config)
    serve(ServeRequest(models, name, revision, port, settings, packaging), as_json=as_json)


@app.command("archive")
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
    accept_rejected: Annotated[bool, typer.Option("--accept-rejected", help="Package it though quantizing exceeded its budget.")] = False,
    revision: Revision = None,
) -> None:
    """Package a checkpoint as an archive for TorchServe.

    Example: marquee archive ./my-model --name bot --handler my_handler.py
    """
    from archiver.deploy.prepare import model_name_from
    from archiver.display import byte_progress
    from archiver.errors import UsageError
    from archiver.package import ArchiveSpec, build_archive, resolve_model

    source = resolve_model(model, revision=revision)
    if source.kind == "archive":
        raise UsageError(f"{model} is an archive already: serve it, or look into it with `marquee inspect`")
    name = name or model_name_from(source.name)
    spec = ArchiveSpec(
        source.path, name, version, handler, tuple(extra or ()), requirements, config,
        format=format, out=out, accept_rejected=accept_rejected,
    )  # fmt: skip
    with byte_progress(f"writing {spec.target}") as progress:
        typer.echo(build_archive(spec, progress=progress))


@app.command("inspect")
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


@app.command("verify")
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


@app.command("quantize")
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


@app.command("doctor")
def doctor_command(as_json: AsJson = False) -> None:
    """Say what this machine can run: packages, devices, and every quantization format with what it lacks.

    Example: marquee doctor --json
    """
    from archiver.deploy.doctor import examine, show_findings

    show_findings(examine(), as_json=as_json)


@app.command("java-home")
def java_home_command() -> None:
    """Print the Java that TorchServe can run on, for the stock way to start it.

    Example: export JAVA_HOME=$(marquee java-home)
    """
    from archiver.deploy.java import find_java_home

    typer.echo(find_java_home())


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on standard error."""
    try:
        sys.exit(app(standalone_mode=False, prog_name="marquee"))
    except (TyperException, ArchiverError, OSError, typer.Abort, KeyboardInterrupt) as error:
        if os.environ.get("MARQUEE_DEBUG"):
            raise
        message, exit_code = _explain(error)
        if message:  # help on a bare command has said it all
            typer.echo(f"marquee: {message}", err=True)
        sys.exit(exit_code)


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, TyperException):
        return error.format_message(), error.exit_code
    if isinstance(error, ArchiverError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}", 1
    return "interrupted", 130
