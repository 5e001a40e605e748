"""What is hidden from a query changes, and the query stays as it was: on every path, to the last attribute.

And the other way round: the photo that asks changes, and the rows that are to answer it stay as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afmrl_cli.attributes.views import StoredViews
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.evaluation.build import TaskSpec, build_task
from afmrl_cli.evaluation.task import documents_of
from afmrl_cli.listener import Silent
from afmrl_cli.rar.queries import KINDS as RAR_KINDS
from afmrl_cli.rar.queries import pose
from afmrl_cli.retrieval.vectors import RowMaker, described_products
from afmrl_cli.store.database import Database
from afmrl_cli.store.files import hash_file
from afmrl_cli.training.corpus import Corpus, load_corpus
from afmrl_cli.training.lexical import build_lexical
from afmrl_cli.training.loss import choose_loss
from afmrl_cli.training.pairs import KINDS, Pair, Side, draw_pair, find_positives
from afmrl_cli.training.plan import Plan
from afmrl_cli.training.validation import make_validation
from afmrl_cli.workspace import Workspace
from tests.attributes.viewed import POOL, Row, Shop, catalogs, everything, write, write_photos
from tests.retrieval.shop import work_of

PROTOCOLS = (
    *((name, "") for name in ("identity", "photo", "fine", "coarse", "text", "composed", "queries")),
    ("coarse", "material"),
)
FIELDS = (("", ""), ("title", ""), ("photos", "text"))


@dataclass(frozen=True)
class Shown:
    """All that the embedder reads on one side of `path`; `listing` is the id of the one that it is made from, "" for
    none.
    """

    path: str
    listing: str
    text: str
    photos: tuple[str, ...]
    attributes: str


@dataclass
class Queried:
    """What a shop asks: queries by name, and by the same names the rows that are to answer a photo alone."""

    queries: dict[str, Shown] = field(default_factory=dict)
    answers: dict[str, tuple[str, list[Shown]]] = field(default_factory=dict)

    def add(self, path: str, name: str, query: Shown, rows: list[Shown]) -> None:
        key = f"{path} {name}"
        self.queries[key] = query
        if len(query.photos) == 1 and not query.text:
            self.answers[key] = query.photos[0], rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("hidden"), 2 * POOL)


def queried(shop: Shop) -> Queried:
    """Every query of every path."""
    corpus = load_corpus(Workspace(shop.folder, shop.settings, Silent()), shop.source, Problems(), for_agcl=False)
    found, listings, enrich = Queried(), corpus.train, shop.settings.embed.enrich

    def shown(path: str, side: Side) -> Shown:
        contents = tuple(photo.content for photo in side.photos)
        return Shown(path, listings[side.listing].id, side.text, contents, side.attributes)

    for kind in KINDS:
        for number, positive in enumerate(find_positives(listings, [kind], required=False)):
            for draw in range(3):
                rng = np.random.default_rng((number, draw))
                pair = draw_pair(positive, listings, rng, max_photos=0, enrich=enrich, dropout=0.0)
                found.add(kind, f"{number} {draw}", shown(kind, pair.query), [shown(kind, pair.target)])
    for number, pair in enumerate(trained(shop, corpus)):
        found.add("training", str(number), shown("training", pair.query), [shown("training", pair.target)])
    if (validation := make_validation(listings, shop.settings)) is not None:
        for number, side in enumerate(validation.queries):
            right = np.flatnonzero(validation.relevant[number] & ~validation.excluded[number]).tolist()
            rows = [shown("validation", validation.gallery[row]) for row in right]
            found.add("validation", str(number), shown("validation", side), rows)
    for rar_kind in RAR_KINDS:
        gallery, queries = pose(
            listings, [True] * len(listings), rar_kind, max_photos=0, enrich=enrich == "both", seed=1
        )
        for query in queries:
            rows = [shown(f"rar {rar_kind}", gallery[row]) for row in query.positives]
            assert not query.side.attributes
            found.add(f"rar {rar_kind}", query.id, shown(f"rar {rar_kind}", query.side), rows)
    evaluated(shop, found)
    return found


def trained(shop: Shop, corpus: Corpus) -> list[Pair]:
    """The pairs of an epoch, as a step of training is given them."""
    positives = find_positives(corpus.train, ["photos", "image-text"], required=False)
    lexical, loss = build_lexical(corpus.tokens), choose_loss(shop.settings.agcl)
    plan = Plan(shop.settings, corpus, positives, lexical, loss, "category", 1, 1, 0.1)
    return plan.draw(list(range(len(positives))), epoch=2)


def evaluated(shop: Shop, found: Queried) -> None:
    with Database(shop.folder.database) as database, Fingerprinter(database) as prints:
        rows = RowMaker(work_of(shop.folder, shop.settings), StoredViews(database, prints, shop.source))
        documents = documents_of(described_products(work_of(shop.folder, shop.settings), rows, Problems()))
        for protocol, label in PROTOCOLS:
            for query_fields, gallery_fields in FIELDS:
                fields = {"query_fields": query_fields, "gallery_fields": gallery_fields, "label": label}
                chosen = shop.settings.model_copy(update={"eval": shop.settings.eval.model_copy(update=fields)})
                try:
                    task = build_task(work_of(shop.folder, chosen), documents, TaskSpec(protocol), rows)
                except (DataError, UsageError):
                    continue
                path = f"eval {protocol} {label}{query_fields}"
                texts = rows.views.texts([query.fingerprint for query in task.queries])
                gallery = {
                    each.id: Shown(
                        path,
                        each.id,
                        each.row.text,
                        tuple(prints.hash_of(photo) for photo in each.product.images),
                        each.row.attributes,
                    )
                    for each in task.documents
                }
                for query in task.queries:
                    photos = tuple(prints.hash_of(photo) for photo in query.images)
                    side = Shown(path, query.id, query.text, photos, texts.get(query.fingerprint, ""))
                    hides = protocol == "photo" or (protocol == "fine" and query.kind == "photo")
                    right = [gallery[id] for id in task.qrels[query.id] if hides and id in gallery]
                    found.add(path, query.id, side, right)


def ask_by_file(place: Path, rows: list[Row]) -> None:
    """Queries of a file, made from listings: their titles, their photos, both."""
    queries, judged = [], []
    for row in rows:
        photos = row["image"].split("|")[:1] if row["image"] else []
        made: dict[str, dict[str, object]] = {
            "t": {"title": row["title"]},
            "p": {"images": photos},
            "b": {"text": row["title"], "images": photos},
        }
        for name, content in made.items():
            if all(content.values()):
                queries.append(json.dumps({"qid": f"{name}{row['id']}", "listing_id": row["id"], **content}))
                judged += [f"{name}{row['id']} 0 {other['id']} 1" for other in rows if other != row]
    (place / "queries.jsonl").write_text("\n".join(queries), "utf-8")
    (place / "qrels.trec").write_text("\n".join(judged), "utf-8")


def other_words(row: Row) -> Row:
    """Another title, category and material, which is text here; what is empty stays empty."""
    return otherwise(row, "title", "category", "attr_material")


def otherwise(row: Row, *columns: str) -> Row:
    return {**row, **{column: f"{row[column]} otherwise" for column in columns if row[column]}}


def other_photos(row: Row, kept: int = -1, only: int = -1) -> Row:
    """Other photos but the one numbered `kept`, or `only` that one another."""
    numbers = [int(Path(name).stem) for name in row["image"].split("|") if name]
    changed = [n if n == kept or (only >= 0 and n != only) else n + POOL for n in numbers]
    return {**row, "image": "|".join(f"images/{n}.png" for n in changed)}


@dataclass(frozen=True)
class Change:
    """A catalog otherwise, and the queries from which all that is changed there is hidden."""

    row: Callable[[Row], Row]
    hidden: Callable[[Shown], bool]


def changes(photo: int, content: str, listing: str) -> dict[str, Change]:
    def another(row: Row) -> Row:
        return row if row["id"] == listing else otherwise(other_photos(row), "title")

    def photo_alone(side: Shown) -> bool:
        said = side.text and not side.path.startswith(("eval composed", "eval queries"))
        return not said and side.photos == (content,)

    def words_alone(side: Shown) -> bool:
        return not side.photos

    def whole(side: Shown) -> bool:
        return side.listing == listing and (side.path.startswith("eval") or side.path in ("listings", "rar listings"))

    def by_file(side: Shown) -> bool:
        return side.path.startswith("eval queries")

    return {
        "all but the photo": Change(lambda row: other_photos(other_words(row), kept=photo), photo_alone),
        "photos": Change(other_photos, words_alone),
        "other listings": Change(another, whole),
        "everything": Change(lambda row: other_photos(other_words(row)), by_file),
        "category": Change(
            lambda row: otherwise(row, "category"),
            lambda side: not side.text or side.path in ("eval coarse ", "eval text ", "eval text title"),
        ),
        "material": Change(
            lambda row: otherwise(row, "attr_material"),
            lambda side: not side.text or side.path in ("eval coarse material", "eval text "),
        ),
    }


def looked_at(place: Path, rows: list[Row], enrich: str, images: int, photo: int, listing: int) -> Iterator[str]:
    """Compare what a shop asks with what it asks when something hidden has changed; yields what was compared."""
    flags = {"embed.enrich": enrich, "model.generator_images": images, "agcl.pairs": ["photos", "image-text"]}
    ask_by_file(place, rows)
    before = queried(write(place, rows, False, **flags))
    content = hash_file(place / f"images/{photo}.png")
    for name, change in changes(photo, content, f"s{listing}").items():
        after = queried(write(place, [change.row(row) for row in rows], False, **flags))
        for key, side in before.queries.items():
            if side.path.startswith("eval composed") and key not in after.queries:
                continue  # which wishes there are follows from what variants differ in
            if change.hidden(side):
                assert after.queries.get(key) == side, f"{name} changed, which {key} can't show"
                yield f"{name}: {side.path}{' enriched' if side.attributes else ''}"
    after = queried(write(place, [other_photos(row, only=photo) for row in rows], False, **flags))
    for key, (asking, answers) in before.answers.items():
        if asking == content and (key in after.answers or not before.queries[key].path.startswith("eval composed")):
            assert after.answers[key][1] == answers, f"rows that answer {key} depend on the photo that asks"
            yield f"answers: {before.queries[key].path}"


@given(catalogs(), st.sampled_from(["query", "both"]), st.integers(0, 2), st.integers(0, POOL - 1), st.integers(0, 5))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_query_stays_as_it_is_when_what_is_hidden_from_it_changes(
    place: Path, rows: list[Row], enrich: str, images: int, photo: int, listing: int
) -> None:
    list(looked_at(place, rows, enrich, images, photo, listing))


def test_every_path_has_queries_from_which_something_is_hidden(place: Path) -> None:
    seen = set(looked_at(place, everything(), "both", 0, 3, 3))
    for path in ("photos", "image-text", "training", "validation", "eval photo ", "eval composed ", "eval queries "):
        assert f"all but the photo: {path} enriched" in seen
    assert {f"all but the photo: rar {kind}" for kind in ("photos", "photo-to-text")} <= seen
    assert {"photos: image-text enriched", "photos: rar text-to-photos", "photos: eval text  enriched"} <= seen
    assert {"other listings: listings enriched", "other listings: eval identity  enriched"} <= seen
    assert {"everything: eval queries  enriched", "category: eval coarse  enriched"} <= seen
    assert {"material: eval coarse material enriched", "material: image-text enriched"} <= seen
    assert {f"answers: {path}" for path in ("photos", "training", "rar photos", "eval photo ")} <= seen
