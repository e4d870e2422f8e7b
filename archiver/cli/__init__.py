"""The ``marquee`` command: arguments in, exit code out.

What a command does stands elsewhere and is imported when it runs, so that help is fast.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from archiver import __version__
from archiver.cli import autoscaling, models, packaging, planning, quantizing, serving, watching
from archiver.errors import ArchiverError
from archiver.printable import printable

app = typer.Typer(
    name="marquee",
    help="Take a Hugging Face checkpoint to a verified TorchServe deployment.",
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 used wrongly. MARQUEE_DEBUG=1 shows tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


app.command("serve")(serving.serve_command)
app.command("archive")(packaging.archive_command)
app.command("inspect")(packaging.inspect_command)
app.command("verify")(packaging.verify_command)
app.command("plan")(planning.plan_command)
app.command("quantize")(quantizing.quantize_command)
app.command("top")(watching.top_command)
app.command("chat")(watching.chat_command)
app.add_typer(models.app)
app.command("autoscale")(autoscaling.autoscale_command)
app.command("doctor")(serving.doctor_command)
app.command("java-home")(serving.java_home_command)


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on standard error."""
    try:
        sys.exit(app(standalone_mode=False, prog_name="marquee"))
    except (TyperException, ArchiverError, OSError, typer.Abort, KeyboardInterrupt) as error:
        if os.environ.get("MARQUEE_DEBUG"):
            raise
        message, exit_code = _explain(error)
        if message:  # help on a bare command has said it all
            typer.echo(f"marquee: {printable(message)}", err=True)  # it may quote a server, a log or an archive
        sys.exit(exit_code)


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, TyperException):
        return error.format_message(), error.exit_code
    if isinstance(error, ArchiverError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}", 1
    return "interrupted", 130
