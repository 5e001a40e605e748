"""The Typer app: commands in groups. Nothing heavy is imported here, so that `afmrl --help` is instant."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from .. import __version__
from ..errors import DataError, UsageError
from .errors import guarded
from .output import Output

REFUSED = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""What the parser of the command line raises; Typer gives the class itself no name of its own."""

app = typer.Typer(
    name="afmrl",
    help="Fine-grained product retrieval from your own catalog: attributes, embeddings, search, evaluation.",
    epilog="Start with: afmrl demo. Exit codes: 0 ok, 1 a check failed, 2 usage or settings, 3 data, "
    "4 model or checkpoint, 5 out of memory, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"afmrl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None: ...


def _register() -> None:
    from . import (
        attributes,
        check,
        checkpoints,
        config,
        cycle,
        dedupe,
        demo,
        doctor,
        embed,
        eval,
        fetch_images,
        init,
        report,
        search,
        train_agcl,
        train_rar,
        train_sft,
    )

    app.command("init", rich_help_panel="Start")(guarded(init.init))
    app.command("check", rich_help_panel="Data")(guarded(check.check))
    app.command("fetch-images", rich_help_panel="Data")(guarded(fetch_images.fetch_images))
    app.command("attributes", rich_help_panel="Use")(guarded(attributes.attributes))
    app.add_typer(checkpoints.checkpoints, name="checkpoints", rich_help_panel="Train")
    app.command("train-sft", rich_help_panel="Train")(guarded(train_sft.train_sft))
    app.command("train-agcl", rich_help_panel="Train")(guarded(train_agcl.train_agcl))
    app.command("train-rar", rich_help_panel="Train")(guarded(train_rar.train_rar))
    app.command("cycle", rich_help_panel="Train")(guarded(cycle.cycle))
    app.command("embed", rich_help_panel="Use")(guarded(embed.embed))
    app.command("search", rich_help_panel="Use")(guarded(search.search))
    app.command("dedupe", rich_help_panel="Use")(guarded(dedupe.dedupe))
    app.command("report", rich_help_panel="Inspect")(guarded(report.report))
    app.command("eval", rich_help_panel="Inspect")(guarded(eval.eval))
    app.command("demo", rich_help_panel="Start")(guarded(demo.demo))
    app.command("config", rich_help_panel="Inspect")(guarded(config.config))
    app.command("doctor", rich_help_panel="Inspect")(guarded(doctor.doctor))


_register()


def _open_streams() -> None:
    """Make standard output and error usable whatever they are: closed, or of an encoding that lacks characters."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        # A file opened later would get its number, and take what libraries print.
        Output().error("standard output is closed: results have nowhere to go", "", DataError.exit_code)
        sys.exit(DataError.exit_code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> None:
    """Entry point of the `afmrl` script."""
    _open_streams()
    if "--json" not in sys.argv[1:]:
        app()
    # What the command line's parser refuses never reaches a command: --json has its one document all the same.
    try:
        sys.exit(app(standalone_mode=False))
    except REFUSED as error:
        hint = "see `afmrl --help`, or --help after a command"
        Output(json_mode=True).error(error.format_message(), hint, UsageError.exit_code)
        sys.exit(UsageError.exit_code)
