"""`afmrl demo`: an example shop and the whole loop on it, by the same commands that a person types."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DataError
from ..store.files import writing
from ..store.folder import SETTINGS_FILE, CatalogFolder
from .cycle import show_composed
from .eval_recommender import show_content
from .flags import Json, Quiet, Verbose
from .output import Output

SEED = 7
"""The shop's; the nano model was trained on other seeds."""
DEFAULT_FOLDER = Path("demo-shop")
DECIDED = """\
Stages were accepted or rejected by the validation queries."""
UNDECIDED = """\
The validation queries are too few to decide by: stages were accepted
undecided. With more products (--products 200) they decide."""
CONCLUSION = """\
Nothing was trained on the products of the test queries, or chosen by them:
believe the test column. The change is that of the test column, to the last
accepted stage before; an interval with 0 in it shows no change.

This program drew the shop: every style in two or three cuts, such as with
buttons and with a zip, each product listed twice, the second time with photos
by phone. A listing asks for the other listing of its product. The nano model
was trained on such drawings, of other garments. What to expect of a real
catalog: docs/findings.md"""
RECOMMENDING = """\
The oracle ranks by the tastes that this program gave its shoppers: nobody can
know them, and no recommender comes near. So few customers, and a training of a
minute, show that the path works; they can't show what a trained recommender
brings. That is measured in docs/lab/recommend.md"""
EARLIER = """\
afmrl.toml is that of an earlier demo, without [recommender]: training one takes as long as for a real shop; delete the
file for the demo's own"""
QUERY = "navy dress with long sleeves"
SHOPPERS, CUSTOMER = 300, "C00001"
QUESTIONS = 100
"""Of `eval-recommender`: so many take half a minute."""
METRIC = "ndcg@10"
"""Of recommending: the recommender orders ten listings anew, which ten they are it can't change."""
PHOTO_SIZE = 224
SETTINGS = """\
# The demo's: a small shop, minutes on two cores. A real shop needs none of it.
[model]
preset = "nano"
generator_images = 1
embedder_images = 1

[embed]             # attributes on what asks and on what is searched
enrich = "both"

[split]             # enough products to choose by, and many to test with
validation = 0.15
test = 0.3

[agcl]
batch_size = 32
steps = 24
validate_every = 12

[cycle]             # nano knows the shop's attributes: nothing to teach it by SFT
sft = "no"
composed = true     # "this one, but in red" after the rounds

[composed]
batch_size = 32
steps = 12
validate_every = 6

[rar]
query = "listings"
k = 1
prompts = 4
steps = 8
validate_every = 4
validation_queries = 40

[recommender]       # what comes next, by the attributes as text: nano reads slowly
text = ["attributes"]
item_tokens = 10
answers = 1
history = 5
candidates = 6
shortlist = 10
batch_size = 16
steps = 40
validate_every = 40
validation_questions = 40
prompts = 4
grpo_steps = 8
"""


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the shop is written.")] = DEFAULT_FOLDER,
    products: Annotated[int, typer.Option(min=60, help="How many products the shop sells.")] = 200,
    json_mode: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run the whole loop on an example shop with the built-in nano model: minutes, no GPU, no network.

    The shop is drawn; each step is a command that you can type yourself; run again, the demo takes up what is done
    already.

    Example: afmrl demo my-demo --products 100
    """
    from ..cycle.stage_results import chosen_settings

    out = Output(json_mode=json_mode, quiet=quiet, verbose=verbose)
    began = time.monotonic()
    query_photo, listing = _write_shop(folder, products, out)
    pages = folder / "pages"
    pages.mkdir(exist_ok=True)
    steps: list[dict[str, Any]] = []

    def step(*words: str) -> None:
        out.text(f"\n$ afmrl {shlex.join(words)}")
        steps.append(_step(context, [*words], json_mode=json_mode, quiet=quiet, verbose=verbose))

    def measured(*words: str) -> dict[str, Any]:
        out.text(f"\n$ afmrl {shlex.join(words)}")
        made = _step(context, [*words], json_mode=True, quiet=quiet, verbose=verbose)
        content: dict[str, Any] = made["result"]
        show_content(out, content)
        steps.append(made)
        return content

    shop = str(folder)
    step("check", shop)
    step("cycle", shop)
    report, content = _cycle(folder)
    chosen = [f"--set={each}" for each in chosen_settings(content)]
    step("embed", shop, *chosen)
    step("eval", shop, "--protocol", "identity", "--split", "test", "--baselines", *chosen)
    for page, words in (
        ("text", [QUERY]),
        ("photo", ["--image", str(query_photo)]),
        ("like", ["--like", listing]),
    ):
        step("search", *words, "--catalog", shop, "-k", "5", "--html", str(pages / f"{page}.html"), *chosen)
    asked = [*chosen, "--set=model.recommender_checkpoint=latest"]
    step("interactions", shop)
    step("train-recommender", shop, *chosen)
    shown = ("-k", "5", "--html", str(pages / "recommend.html"))
    step("recommend", "--customer", CUSTOMER, "--catalog", shop, *shown, *asked)
    recommending = measured("eval-recommender", shop, "--max-queries", str(QUESTIONS), *asked)
    step("report", shop)
    seconds = round(time.monotonic() - began, 1)
    document = {"folder": folder.resolve(), "pages": pages.resolve(), "report": report, "seconds": seconds}
    out.document("afmrl.demo/1", {**document, "steps": steps})
    _conclude_cycle(out, content)
    _conclude_recommending(out, recommending)
    out.text(f"\n{seconds:.0f} s in all. Everything is stored in {folder.resolve()}:")
    out.text(f"  catalog.csv, images/, {SETTINGS_FILE}   the shop and its settings")
    out.text("  interactions.csv, truth/           its shoppers, and what they like")
    out.text("  .afmrl/                            attributes, vectors, checkpoints, runs")
    for name in ("text", "photo", "like", "recommend"):
        out.text(f"  {(pages / name).with_suffix('.html').resolve()}")
    out.text(f"\nThe report, for a browser: {report}")


def _conclude_cycle(out: Output, content: dict[str, Any]) -> None:
    metric, results = content["metric"], content["leaderboard"]
    out.text("")
    columns = ["stage", "validation", "decided", "test", "change", "interval"]
    out.table(columns, [_row(stage, metric) for stage in results], f"{metric} of each stage")
    for stage in results:
        if stage["note"]:
            out.words(f"{stage['name']}: {stage['note']}")
    if content["composed"]:
        show_composed(out, content["composed"])
    few = content["chosen_by"]["products"] < content["chosen_by"]["needed"]
    out.text(f"{UNDECIDED if few else DECIDED}\n{CONCLUSION}")


def _conclude_recommending(out: Output, content: dict[str, Any]) -> None:
    """Say what the evaluation of recommending found, and plainly where the trained recommender gains nothing."""
    found = {system["system"]: system["metrics"][METRIC] for system in content["systems"]}
    compared = next(each for each in content["comparisons"] if each["system"] == "recommender")["differences"]
    difference = next(each for each in compared if each["metric"] == METRIC)
    gained = difference["verdict"] == "better"
    out.text()
    out.words(
        f"Recommending, {content['questions']} questions of {content['customers']} customers, {METRIC} among "
        f"{content['listings']} listings: {found['fused']:.3f} by the retrieval (fused), {found['recommender']:.3f} "
        f"with its first ten in the trained recommender's order, {found['oracle']:.3f} by the oracle. "
        + ("" if gained else "Training a recommender gained nothing that shows. ")
        + f"recommender, {difference['words']}",
        0,
    )
    out.text(RECOMMENDING)


def _row(stage: dict[str, Any], metric: str) -> list[object]:
    scores = [stage[split] or {"metrics": {}, "change": None} for split in ("validation", "test")]
    values = [each["metrics"].get(metric) for each in scores]
    validation, test = ("-" if value is None else f"{value:.3f}" for value in values)
    state = "baseline" if stage["baseline"] else "accepted" if stage["accepted"] else "rejected"
    if not stage["accepted"] and not stage["validation"]:
        state = "skipped"
    row = [stage["name"], validation, state if stage["against"] else "", test]
    if (change := scores[1]["change"]) is None:
        return [*row, "-", "-"]
    return [*row, f"{change['difference']:+.3f}", f"{change['low']:+.3f} to {change['high']:+.3f}"]


def _cycle(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the report of the cycle that has just ended, and its document."""
    from ..cycle.report import REPORT, find_cycle

    place = find_cycle(CatalogFolder(folder.resolve() / "catalog.csv"))
    content: dict[str, Any] = json.loads((place / "cycle.json").read_text("utf-8"))
    return place / REPORT, content


def _write_shop(folder: Path, products: int, out: Output) -> tuple[Path, str]:
    """Write the shop; return a shopper's photo that no listing shows, and the id of a listing."""
    from ..nano.shop import ShopPlan, write_shop

    plan = ShopPlan(products, SEED, 1.0, details=True, duplicates=1.0, leave_out=0.8, phone=True, size=PHOTO_SIZE)
    out.text(f"An example shop of {products:,} products, each listed twice, drawn into {folder}")
    try:
        with out:
            shop = write_shop(
                folder,
                replace(plan, shoppers=SHOPPERS),
                processes=os.cpu_count() or 1,
                listener=out,
            )
    except FileExistsError as error:
        raise DataError(
            str(error), "give another folder: afmrl demo DIR; or delete this one if it is an old demo"
        ) from error
    if not (folder / SETTINGS_FILE).exists():
        with writing(folder / SETTINGS_FILE) as temporary:
            temporary.write_text(SETTINGS, "utf-8")
    elif "[recommender]" not in (folder / SETTINGS_FILE).read_text("utf-8"):
        out.note(EARLIER)
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
