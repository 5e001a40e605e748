"""`afmrl interactions`: what customers did with the catalog's products, read, counted and stored by hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .flags import setting
from .options import Session, in_session

if TYPE_CHECKING:
    from ..recommend.run import Forgotten, Loaded

COLUMNS_SHOWN, ITEMS_SHOWN = 12, 5
HANG = 29


@in_session(
    setting("recommend.interactions", metavar="FILE", repeat=True, from_here=True),
    setting("recommend.timezone"),
    setting("recommend.day_order"),
    setting("recommend.most_events"),
    setting("recommend.split"),
    writes=True,
)
def interactions(
    session: Session,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            "--forget",
            metavar="CUSTOMER",
            help="Remove a customer from all that is stored, and leave them out from now on. Repeatable.",
        ),
    ] = None,
) -> None:
    """Show and store what customers did with the catalog's products: purchases, views, orders of a shop's export.

    Customers are stored as keyed hashes; names, addresses and e-mails never.

    Example: afmrl interactions --interactions orders.csv; afmrl interactions --forget anna@example.com
    """
    from ..recommend.run import forget_customers, load_interactions
    from ..store.lock import writer_lock

    work = session.work
    with session.out, writer_lock(work.folder.store, "afmrl interactions"):
        if forget:
            _show_forgotten(session, forget_customers(work, forget))
            return
        loaded = load_interactions(work)
    _show(session, loaded)


def _show_forgotten(session: Session, customers: list[Forgotten]) -> None:
    out = session.out
    rows = [{"customer": each.customer, "removed": each.interactions, "before": each.before} for each in customers]
    trained = [each.name for each in session.work.checkpoints.list() if each.role == "recommender"]
    content = {"catalog": session.folder.catalog, "forgotten": rows, "recommenders": trained}
    out.document("afmrl.forgotten/1", content)
    for each in customers:
        if each.interactions:
            removed = f"{each.interactions:,} stored interactions removed"
        else:
            removed = "nothing was stored of this customer"
        out.words(
            f"customer {each.customer}: {removed}; {'was already' if each.before else 'is'} left out of all reads"
        )
    out.words("Files of your own stay as they are; `afmrl interactions` reads them again without these customers.")
    if trained:
        out.words(
            f"Trained before, and may have learnt from them: {', '.join(trained)}; `afmrl train-recommender` trains "
            f"without them, and then the old ones can go ({session.folder.checkpoints})."
        )


def _show(session: Session, loaded: Loaded) -> None:
    from ..recommend.run import summary_of
    from ..recommend.split import split_interactions, split_summary
    from ..recommend.store import interactions_folder

    out, counted = session.out, loaded.counted
    split = split_interactions(loaded.interactions, session.settings.recommend)
    content = {
        "catalog": session.folder.catalog,
        **summary_of(loaded.interactions, counted),
        **{key: value for key, value in counted.items() if key != "next_future"},
        "unknown_items": [{"item": item, "interactions": count} for item, count in counted["unknown_items"]],
        "split": split_summary(loaded.interactions, split),
        "read_before": loaded.reused,
        "store": interactions_folder(session.folder),
    }
    out.document("afmrl.interactions/1", content)
    for file in counted["files"]:
        _show_file(session, file)
    _show_counts(session, content, reused=loaded.reused)
    _show_split(session, content["split"])
    _show_left_out(session, content)
    out.text(f"  {content['store']}")


def _line(session: Session, name: str, value: str) -> None:
    session.out.words(f"{name:<{HANG}}{value}", HANG - (len(name) - len(name.lstrip())))


def _show_file(session: Session, file: dict[str, Any]) -> None:
    layout = f"  (read as {file['layout'].capitalize()} orders)" if file["layout"] else ""
    session.out.text(f"{file['file']}{layout}")
    for role, names in file["columns"].items():
        _line(session, f"  {role}", ("columns " if len(names) > 1 else "column ") + ", ".join(names))
    if personal := file["personal_columns"]:
        more = f" and {len(personal) - COLUMNS_SHOWN} more" if len(personal) > COLUMNS_SHOWN else ""
        _line(session, "  personal data", f"{', '.join(personal[:COLUMNS_SHOWN])}{more}: never stored")
    if file["day_order"]:
        _line(session, "  dates", f"read {file['day_order']}")
    if file["partly_refunded_orders"]:
        orders = f"orders: {file['partly_refunded_orders']:,}; kept, the export does not say which lines"
        _line(session, "  refunded in part", orders)
    for kind, count in file["notes"].items():
        _line(session, "  note", f"{kind}: {count:,}")


def _show_counts(session: Session, content: dict[str, Any], *, reused: bool) -> None:
    history = content["history"]
    matched = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in content["matched_by"].items())
    known = f"{content['known_items']:.1%} of items, {content['known_interactions']:.1%} of interactions"
    before = " (stored before, nothing has changed)" if reused else ""
    session.out.text()
    for name, value in (
        ("interactions", f"{content['interactions']:,}{before}"),
        ("customers", f"{content['customers']:,}, {history['of_one']:,} with one interaction only"),
        ("items", f"{content['items']:,} of the catalog's {content['catalog_listings']:,}; found by {matched}"),
        ("  known in the catalog", known),
        ("from, to", f"{content['first']}, {content['last']}"),
        ("history", f"median {history['median']:g}, 90% {history['p90']:g}, most {history['most']:,}"),
        ("repeats", f"{content['repeats']:,} of the same customer and item ({content['share_of_repeats']:.1%})"),
    ):
        _line(session, name, value)
    if events := content["events"]:
        _line(session, "events", ", ".join(f"{name} {count:,}" for name, count in events.items()))
    if content["partly_returned"]:
        _line(session, "returned in part", f"{content['partly_returned']:,} purchases, kept with what is left")
    dates = sum(file["dates_without_time"] for file in content["files"])
    if dates:
        _line(session, "dates without time", f"{dates:,}")


def _show_split(session: Session, split: dict[str, Any]) -> None:
    out = session.out
    out.text()
    rows = []
    for name in ("train", "validation", "test"):
        part = split[name]
        new_customers, new_items = part.get("new_customers", "-"), part.get("new_items", "-")
        counts = [part["interactions"], part["customers"], new_customers, part["items"], new_items]
        rows.append([name, *counts, part["first"][:10] or "-"])
    out.table(["split", "interactions", "customers", "new", "items", "new", "from"], rows)
    if split["leaks"]:
        out.words(f"warning: recommend.split = last {split['leaks']}")


def _show_left_out(session: Session, content: dict[str, Any]) -> None:
    from ..recommend.left_out import where

    out, several = session.out, len(content["files"]) > 1
    if content["left_out"]:
        out.text("left out:")
    for reason, found in content["left_out"].items():
        examples = "; ".join(filter(None, (where(each, several=several) for each in found["examples"])))
        bound = f" (more than {content['most_events']:,} events)" if reason == "bot" else ""
        _line(session, f"  {reason}", f"{found['count']:,}{bound}" + (f": {examples}" if examples else ""))
    if unknown := content["unknown_items"]:
        named = ", ".join(f"{each['item']} ({each['interactions']:,})" for each in unknown[:ITEMS_SHOWN])
        _line(session, "  most frequent unknown", named)
