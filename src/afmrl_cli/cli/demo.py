"""`afmrl demo`: an example shop and the whole job on it, by the same commands that a person types."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DataError
from .options import Json, Quiet, Verbose
from .output import Output

SEED = 7
"""The shop's; the nano model was trained on other seeds."""
DEFAULT_FOLDER = Path("demo-shop")
QUESTION = "navy dress with long sleeves"


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the shop is written.")] = DEFAULT_FOLDER,
    products: Annotated[int, typer.Option(min=20, help="How many products the shop sells.")] = 300,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Render an example shop and run the whole job on it with the built-in nano model: minutes, no GPU, no network.

    Each step is a command that you can type yourself; run again, the demo takes up what is done already.

    Example: afmrl demo my-demo --products 100
    """
    out = Output(json_mode=json_mode, quiet=quiet, verbose=verbose)
    began = time.monotonic()
    query_photo, listing = _write_shop(folder, products, out)
    pages = folder / "pages"
    pages.mkdir(exist_ok=True)
    steps = []
    for words in (
        ["check", str(folder)],
        ["attributes", str(folder)],
        ["embed", str(folder)],
        ["eval", str(folder), "--protocol", "identity", "--baselines"],
        ["eval", str(folder), "--protocol", "photo", "--baselines"],
        ["eval", str(folder), "--protocol", "queries", "--baselines"],
        ["search", QUESTION, "--catalog", str(folder), "-k", "5", "--html", str(pages / "text.html")],
        [
            "search",
            "--image",
            str(query_photo),
            "--catalog",
            str(folder),
            "-k",
            "5",
            "--html",
            str(pages / "photo.html"),
        ],
        ["search", "--like", listing, "--catalog", str(folder), "-k", "5", "--html", str(pages / "like.html")],
    ):
        out.text(f"\n$ afmrl {shlex.join(words)}")
        steps.append(_step(context, words, json_mode=json_mode, quiet=quiet, verbose=verbose))
    seconds = round(time.monotonic() - began, 1)
    out.document(
        "afmrl.demo/1", {"folder": folder.resolve(), "pages": pages.resolve(), "seconds": seconds, "steps": steps}
    )
    out.text(
        "\nThe shop was drawn by this program and the nano model has seen nothing but such drawings: the figures say"
    )
    out.text("that the path works, not how well a real catalog will be searched. docs/real-catalogs.md says that.")
    out.text(f"\n{seconds:.0f} s in all. Everything lies in {folder.resolve()}:")
    out.text("  catalog.csv, images/            the shop; queries.jsonl and qrels.trec are what it is scored by")
    out.text("  .afmrl/                         attributes, vectors, index, runs")
    for name in ("text", "photo", "like"):
        out.text(f"  {(pages / name).with_suffix('.html').resolve()}")


def _write_shop(folder: Path, products: int, out: Output) -> tuple[Path, str]:
    """Write the shop; a shopper's photo that no listing shows, and the id of a listing."""
    from ..nano.shop import write_shop

    out.text(f"An example shop of {products:,} products, drawn into {folder}")
    try:
        with out:
            shop = write_shop(folder, products, SEED, processes=os.cpu_count() or 1, listener=out)
    except FileExistsError as error:
        raise DataError(str(error), "give another folder: afmrl demo DIR") from error
    photo = next(query for query in shop.queries if query.shots)
    return folder / photo.shots[0].name, photo.answers[0]


def _step(context: typer.Context, words: list[str], *, json_mode: bool, quiet: bool, verbose: bool) -> dict[str, Any]:
    """Run one command in this process, its output shown; with --json its document is part of what is returned."""
    flags = [flag for flag, on in (("--json", json_mode), ("-q", quiet), ("-v", verbose)) if on]
    began = time.monotonic()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed) if json_mode else contextlib.nullcontext():
        code = context.find_root().command.main([*words, *flags], standalone_mode=False)
    if code:  # the command has said why
        raise typer.Exit(code)
    step: dict[str, Any] = {"command": ["afmrl", *words], "seconds": round(time.monotonic() - began, 1)}
    if json_mode:
        step["result"] = json.loads(printed.getvalue())
    return step
