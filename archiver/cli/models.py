"""``marquee models``: what a running server serves, and changing that."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archiver.cli.options import AsJson
from archiver.printable import printable

if TYPE_CHECKING:
    from archiver.deploy.running_server import RunningServer

app = typer.Typer(
    name="models",
    help="List, register, scale, roll and unregister the models of a running server.",
    no_args_is_help=True,
    add_completion=False,
)

Url = Annotated[str, typer.Option(help="The management API's address.", envvar="MARQUEE_MANAGEMENT_URL")]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The server's key_file.json; found for a server of yours on this machine.", envvar="MARQUEE_KEY_FILE"
    ),
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
OneVersion = Annotated[str | None, typer.Option(help="Which version; needed if there are several.")]
Source = Annotated[str, typer.Argument(metavar="ARCHIVE", help="An archive, a name in the server's model store, an https URL.")]
DrainTimeout = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long requests in progress may take to end.")]
Force = Annotated[bool, typer.Option("--force", help="Do not wait for requests in progress: they are lost, some without an answer.")]

URL = "http://127.0.0.1:8081"


@app.command("list")
def list_command(url: Url = URL, key_file: KeyFileOption = None, as_json: AsJson = False) -> None:
    """List all models and their versions.

    Example: marquee models list --json
    """
    from archiver.deploy.models import list_models
    from archiver.deploy.models.display import show_models
    from archiver.display import show_json

    with _server(url, key_file) as server:
        models = list_models(server)
    if as_json:
        show_json({"models": [model.to_dict() for model in models]})
    else:
        show_models(models)


@app.command("show")
def show_command(name: ModelName, url: Url = URL, key_file: KeyFileOption = None, as_json: AsJson = False) -> None:
    """Show a model's versions with their workers, engine replicas and queues.

    Example: marquee models show bot
    """
    from archiver.deploy.models import list_versions
    from archiver.deploy.models.display import show_versions
    from archiver.display import show_json

    with _server(url, key_file) as server:
        models = list_versions(server, name)
    if as_json:
        show_json({"name": name, "versions": [model.to_dict() for model in models]})
    else:
        show_versions(models)


@app.command("register")
def register_command(
    archive: Source,
    name: Annotated[str | None, typer.Option(help="The model's name in URLs; the archive's own by default.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers, or engine replicas of a continuous model.")] = 1,
    url: Url = URL,
    key_file: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Register an archive, and wait until it can answer. A local one is verified and linked into the server's model store.

    Example: marquee models register model_store/bot.mar
    """
    from archiver.deploy.models import register_model
    from archiver.deploy.models.display import console_progress
    from archiver.deploy.models.listing import ListedModel
    from archiver.display import show_json

    _undo_when_terminated()
    with _server(url, key_file) as server, console_progress() as progress:
        model = register_model(server, archive, name=name, count=workers, progress=progress)
    if as_json:
        show_json(ListedModel(model).to_dict())
    else:
        _tell(f"{model.name} {model.version} is registered{'' if model.is_default else ', not as the default'}")


@app.command("scale")
def scale_command(
    name: ModelName,
    count: Annotated[int, typer.Argument(metavar="N", help="Engine replicas of a continuous model, workers of a synchronous one.")],
    version: Annotated[str | None, typer.Option(help="Which version; the default one unless given.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long replicas may take to get ready.")] = 600.0,
    drain_timeout: DrainTimeout = 60.0,
    force: Force = False,
    url: Url = URL,
    key_file: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Give a model more or fewer engine replicas or workers, without losing a request.

    Example: marquee models scale bot 2
    """
    from dataclasses import asdict

    from archiver.deploy.models import scale_model
    from archiver.deploy.models.display import console_progress
    from archiver.display import show_json

    _undo_when_terminated()
    with _server(url, key_file) as server, console_progress() as progress:
        model = server.management.describe(name, version)
        scaled = scale_model(server, model, count, timeout_s=timeout, drain_timeout_s=drain_timeout, force=force, progress=progress)
    if as_json:
        show_json(asdict(scaled))
    else:
        _tell(f"{name} {scaled.version}: {scaled.unit} from {scaled.before} to {scaled.after}")


@app.command("default")
def default_command(
    name: ModelName,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Where requests go that name no version.")],
    url: Url = URL,
    key_file: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the default of its model.

    Example: marquee models default bot 2.0
    """
    from archiver.display import show_json

    with _server(url, key_file) as server:
        server.management.set_default(name, version)
    if as_json:
        show_json({"name": name, "default": version})
    else:
        _tell(f"{name} {version} is the default")


@app.command("unregister")
def unregister_command(
    name: ModelName,
    version: OneVersion = None,
    drain_timeout: DrainTimeout = 60.0,
    force: Force = False,
    url: Url = URL,
    key_file: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Remove a version of a model when the last of its requests is answered.

    Example: marquee models unregister bot --version 1.0
    """
    from archiver.deploy.models import unregister_model
    from archiver.deploy.models.display import console_progress
    from archiver.deploy.models.listing import only_version
    from archiver.display import show_json

    _undo_when_terminated()
    with _server(url, key_file) as server, console_progress() as progress:
        model = only_version(server, name, version)
        unregister_model(server, model, drain_timeout_s=drain_timeout, force=force, progress=progress)
    if as_json:
        show_json({"name": name, "unregistered": model.version})
    else:
        _tell(f"{name} {model.version} is unregistered")


@app.command("roll")
def roll_command(
    name: ModelName,
    archive: Source,
    probe: Annotated[Path | None, typer.Option(metavar="FILE", help="A request to ask the new version; a short text by default.")] = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Ask the new version nothing before clients do.")] = False,
    drain_timeout: DrainTimeout = 60.0,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Leave the old version registered.")] = False,
    inference_url: Annotated[str | None, typer.Option(metavar="URL", help="The inference API's address, for the probe.")] = None,
    url: Url = URL,
    key_file: KeyFileOption = None,
    as_json: AsJson = False,
) -> None:
    """Replace a model by a new version without losing a request: register, probe, make it the default, drain and remove the old one.

    If the new one fails to load or to answer the probe, the old one serves on. Example: marquee models roll bot model_store/bot-2.0.mar
    """
    from dataclasses import asdict

    from archiver.deploy.models import roll_model
    from archiver.deploy.models.display import console_progress
    from archiver.deploy.models.probe import TEXT_GENERATION, Probe
    from archiver.display import show_json
    from archiver.errors import UsageError

    if probe and no_probe:
        raise UsageError("--probe and --no-probe exclude each other: give one of them")
    _undo_when_terminated()
    question = None if no_probe else Probe.from_file(probe) if probe else TEXT_GENERATION
    with _server(url, key_file, inference_url) as server, console_progress() as progress:
        rolled = roll_model(server, name, archive, probe=question, drain_timeout_s=drain_timeout, keep_old=keep_old, progress=progress)
    if as_json:
        show_json(asdict(rolled))
    else:
        _tell(f"{name} rolled from {rolled.old_version} to {rolled.new_version}")


def _server(url: str, key_file: Path | None, inference_url: str | None = None) -> RunningServer:
    from archiver.deploy.running_server import RunningServer

    return RunningServer.at(url, key_file=key_file, inference_url=inference_url)


def _tell(what: str) -> None:
    typer.echo(printable(what))


def _undo_when_terminated() -> None:
    """Have SIGTERM, and the end of the terminal, end what is under way as Ctrl-C does: what is half done is undone."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
