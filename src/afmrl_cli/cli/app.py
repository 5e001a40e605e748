"""The Typer app: the commands in groups. A command is imported when it is called, so that `afmrl --help` is instant."""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__

RENAMED_FLAGS = {"--ask": "--query-fields", "--show": "--gallery-fields"}
REFUSED = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""What the parser of the command line raises; Typer gives the class itself no name of its own."""

COMMANDS: dict[str, tuple[str, str]] = {
    "init": (
        "Start",
        "Propose columns and settings for a catalog, and write them to afmrl.toml after showing them.",
    ),
    "demo": (
        "Start",
        "Run the whole loop on an example shop with the built-in nano model: minutes, no GPU, no network.",
    ),
    "check": (
        "Data",
        "Show what is in a catalog and what is wrong with it, by row and column; exit 1 when something is lost.",
    ),
    "fetch-images": (
        "Data",
        "Fetch the photos that the catalog links to into .afmrl/images; all other commands then find them there.",
    ),
    "attributes": (
        "Use",
        "Let a generator write each product's attributes; only new and changed products cost anything.",
    ),
    "embed": (
        "Use",
        "Compute each product's vector and build the index; only new and changed products cost anything.",
    ),
    "merge": (
        "Use",
        "Join what processes with --shard have made into the store, as if one process had made all of it.",
    ),
    "index": ("Use", "Push vectors and listings into Qdrant, or export them as files."),
    "search": (
        "Use",
        "Find products by text, by photo, by both together, by likeness to a listing, or as a change of either.",
    ),
    "serve": (
        "Use",
        "Serve search on this catalog: a page for people, JSON for programs, the model loaded once.",
    ),
    "dedupe": (
        "Use",
        "Find listings that are the same product, by their vectors, text, codes, attributes, prices and photos.",
    ),
    "interactions": (
        "Use",
        "Show and store what customers did with the catalog's products: purchases, views, orders of a shop's export.",
    ),
    "recommend": (
        "Use",
        "Recommend what a customer may want next, over the whole catalog, and say why.",
    ),
    "triplets": (
        "Train",
        'Make triplets from the catalog: a listing, a change such as "color: red", and the listing that has it.',
    ),
    "train-sft": ("Train", "Teach the generator by right answers (SFT); the adapter goes into the checkpoint store."),
    "train-agcl": (
        "Train",
        "Train the embedder to tell near-identical products apart (AGCL); the adapter goes into the checkpoint store.",
    ),
    "train-rar": (
        "Train",
        "Train the generator to write the attributes by which the frozen embedder finds products (RAR, GRPO).",
    ),
    "train-rerank": (
        "Train",
        "Teach the generator's base to say whether two listings are one product: a second stage for search.",
    ),
    "train-composed": (
        "Train",
        "Teach the embedder to find a listing by a photo and a change (search --change), from triplets of the catalog.",
    ),
    "train-vision": (
        "Train",
        "Teach an encoder for photos what tells two of them apart, through the frozen language model (SAGA).",
    ),
    "train-recommender": (
        "Train",
        "Teach the generator's base which listing a customer takes next: by what came next, then by reward (GRPO).",
    ),
    "cycle": (
        "Train",
        "Run the whole loop: attributes, AGCL, RAR, new attributes, ...; stages are accepted by the validation split.",
    ),
    "checkpoints": ("Train", "List, show, compare, prune, export and import trained adapters."),
    "report": (
        "Inspect",
        "Write the report of a cycle anew: one HTML file with its stages, and results before and after with pictures.",
    ),
    "eval": (
        "Inspect",
        "Measure retrieval: Recall@k, hit@k, MRR, nDCG@10, mAP, precision@10, with intervals; classes with coarse.",
    ),
    "eval-recommender": (
        "Inspect",
        "Measure recommending: HR@k and nDCG@k of what customers took next, over the whole catalog, beside baselines.",
    ),
    "config": (
        "Inspect",
        "Print the settings as TOML: flags over AFMRL_* over afmrl.toml over defaults, which are comments.",
    ),
    "doctor": (
        "Inspect",
        "Check the installation: versions, GPU, memory, FAISS, torchvision, and which models are at hand.",
    ),
}
"""The commands in the order of `afmrl --help`: panel, and the first sentences of the command's own docstring, which
stand here so that the list loads no command. The module is called as the command is."""


class Commands(TyperGroup):
    """The commands, each loaded when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return what help and completion show of a command."""
        if cmd_name not in COMMANDS:
            return None
        panel, help_ = COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=help_, rich_help_panel=panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Load the command that was called."""
        if args[0] not in COMMANDS:
            self.commands = {name: TyperCommand(name) for name in COMMANDS}  # what the message may suggest
            return super().resolve_command(ctx, args)
        return args[0], _load(args[0]), args[1:]


def _load(name: str) -> Any:
    from .errors import guarded

    module = name.replace("-", "_")
    command = getattr(importlib.import_module(f".{module}", __package__), module)
    if isinstance(command, typer.Typer):
        return typer.main.get_command(command)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(guarded(command))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="afmrl",
    cls=Commands,
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


def _open_streams() -> None:
    """Make standard output and error usable whatever they are: closed, or of an encoding that lacks characters."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        from ..errors import DataError
        from .output import Output

        # A file opened later would get its number, and take what libraries print.
        Output().error("standard output is closed: results have nowhere to go", "", DataError.exit_code)
        sys.exit(DataError.exit_code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _refuse_renamed_flags(words: list[str]) -> None:
    for word in words:
        if words[0] == "eval" and (new := RENAMED_FLAGS.get(word.partition("=")[0])):
            from ..errors import UsageError
            from .output import Output

            Output(json_mode="--json" in words).error(f"{word}: is {new} now", "", UsageError.exit_code)
            sys.exit(UsageError.exit_code)


def main() -> None:
    """Run the `afmrl` script."""
    _open_streams()
    _refuse_renamed_flags(sys.argv[1:])
    if "--json" not in sys.argv[1:]:
        app()
    from ..errors import UsageError
    from .output import Output

    # What the command line's parser refuses never reaches a command: --json has its one document all the same.
    try:
        sys.exit(app(standalone_mode=False))
    except REFUSED as error:
        hint = "see `afmrl --help`, or --help after a command"
        Output(json_mode=True).error(error.format_message(), hint, UsageError.exit_code)
        sys.exit(UsageError.exit_code)
