"""Bad luck and bad input around an index in a folder: what is told, and that nothing is half replaced."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.errors import DataError
from afmrl_cli.index import place as places
from afmrl_cli.index.card import Card
from afmrl_cli.index.conditions import has_value
from afmrl_cli.index.edge import Folder
from afmrl_cli.index.place import open_engine
from afmrl_cli.index.points import TAGS, number_of
from afmrl_cli.index.push import push_index
from afmrl_cli.index.search import IndexSearcher
from afmrl_cli.listener import Silent
from afmrl_cli.own import own_file
from afmrl_cli.retrieval.search import Query
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO
from tests.cli.calls import call
from tests.conftest import MakeDisk, fill, kill_once
from tests.retrieval.shop import Row

from .conftest import work_of
from .test_push import edit, found, push


def refused(*words: str, code: int) -> str:
    """What a command says that fails: one line, or two."""
    done = call(*words)
    assert done.exit_code == code, done.output
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note")]
    assert 1 <= len(lines) <= 6, done.stderr  # at 80 columns
    return " ".join(done.stderr.split())


def versions(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.is_dir())


def test_only_changed_products_are_sent_and_those_that_are_gone_are_removed(shop: Path, place: Path) -> None:
    push(place)
    edit(shop, lambda rows: [{**row, "price": "99"} if row["id"] == "s7" else row for row in rows if row["id"] != "s3"])
    summary = push(place)
    assert (summary["sent"], summary["removed"], summary["products"]) == (1, 1, 23)
    assert [id for id, _ in found("shirt", "--filter", "price=99", index=place)] == ["s7"]
    assert found("shirt", index=place) and "s3" not in dict(found("shirt", index=place))


def test_attributes_that_are_written_later_are_sent(shop: Path, place: Path) -> None:
    from afmrl_cli.retrieval.vectors import load_vectors
    from afmrl_cli.store.database import Database, StoredAttributes

    push(place)
    work = work_of(shop)
    source = work.source_on_disk
    assert source is not None
    row = load_vectors(work).listings.listing(1)
    with Database(work.folder.database) as database:
        stored = (row.fingerprint, source.generator, source.prompt, row.id, "lining: mesh", None, 0.0)
        database.put_attributes([StoredAttributes(*stored)])
    assert push(place)["sent"] == 1
    assert [id for id, _ in found("shirt", "--filter", "lining=mesh", index=place)] == [row.id]


def test_another_embedders_vectors_take_the_place_at_once_and_whole(shop: Path, place: Path) -> None:
    push(place)
    before = versions(place)
    said = refused("search", "shirt", "--index", str(place), "--set", "embed.dimensions=16", code=4)
    assert "the settings name" in said and "afmrl index push" in said
    assert call("embed", "--dimensions", "16").exit_code == 0
    summary = push(place, "--set", "embed.dimensions=16")
    assert summary["sent"] == 24 and summary["dimension"] == 16 and summary["replaced"]
    assert len(versions(place)) == 1 and versions(place) != before
    assert call("search", "shirt", "--index", str(place), "--set", "embed.dimensions=16").exit_code == 0
    assert "holds vectors of" in refused("search", "shirt", "--index", str(place), code=4)


def test_a_push_that_is_killed_goes_on_with_the_same_result(shop: Path, place: Path, tmp_path: Path) -> None:
    """Killed while a new embedder's vectors are sent: the old ones count until the new ones are whole."""
    push(place)
    old = found("shirt", index=place)
    work = work_of(shop, **{"embed.dimensions": 16})
    assert call("embed", "--dimensions", "16").exit_code == 0
    sent = tmp_path / "sent"

    def slowly() -> None:
        with open_engine(str(place), "afmrl index push", shop) as engine:
            assert isinstance(engine, Folder)
            put = engine.put

            def by_fours(numbers, vectors, payloads) -> None:
                for at in range(0, len(numbers), 4):
                    put(numbers[at : at + 4], vectors[at : at + 4], payloads[at : at + 4])
                    if at == 8:
                        sent.touch()
                    time.sleep(0.3 * (at >= 8))

            engine.put = by_fours  # type: ignore[method-assign]
            push_index(work, engine)

    kill_once(sent.exists, slowly)
    assert len(versions(place)) == 2
    assert found("shirt", index=place) == old
    summary = push(place, "--set", "embed.dimensions=16")
    assert 0 < summary["sent"] <= 24 - 8
    assert (summary["products"], summary["recall"]) == (24, 1.0)
    assert len(versions(place)) == 1
    other = tmp_path / "unbroken"
    push(other, "--set", "embed.dimensions=16")
    words = ("shirt", "--set", "embed.dimensions=16")
    assert found(*words, index=place) == found(*words, index=other)


def test_a_push_in_place_that_is_stopped_is_told_to_who_searches(shop: Path, place: Path) -> None:
    push(place)
    card = next(place.glob("*/card.json"))
    card.write_text(json.dumps({**json.loads(card.read_text()), "complete": False}))
    assert "was stopped" in call("search", "shirt", "--index", str(place)).stderr
    assert push(place)["sent"] == 0
    assert "was stopped" not in call("search", "shirt", "--index", str(place)).stderr


@pytest.mark.parametrize(
    ("what", "change"), [("put", lambda rows: [*rows, rows[0] | {"id": "new"}]), ("remove", lambda rows: rows[1:])]
)
def test_a_push_that_can_not_write_leaves_word_that_it_had_begun(
    shop: Path, place: Path, monkeypatch: pytest.MonkeyPatch, what: str, change: Callable[[list[Row]], list[Row]]
) -> None:
    push(place)
    edit(shop, change)

    def fail(*_: object) -> None:
        raise DataError("nothing works")

    with monkeypatch.context() as broken:
        broken.setattr(Folder, what, fail)
        assert "nothing works" in refused("index", "push", "--to", str(place), code=3)
    assert "was stopped" in call("search", "shirt", "--index", str(place)).stderr
    push(place)
    assert "was stopped" not in call("search", "shirt", "--index", str(place)).stderr


def test_numbers_that_many_listings_have_are_indexed(shop: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afmrl_cli.index.push.INDEXED_FROM", 0.5)
    edit(shop, lambda rows: [row | {"weight": "2 kg" if i < 3 else ""} for i, row in enumerate(rows)])
    push(place)
    with open_engine(str(place), "afmrl search", shop) as engine:
        assert isinstance(engine, Folder) and engine.open()
        assert set(engine._shard.info().payload_schema) == {"tags", "numbers.price"}


def test_recall_is_measured_on_a_sample(shop: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afmrl_cli.index.push.QUERIES", 10)
    summary = push(place)
    assert (summary["queries"], summary["recall"]) == (10, 1.0)
    low, high = summary["interval"]
    assert 0.5 < low < high == 1.0
    edit(shop, lambda rows: rows[:1])
    summary = push(place, "--force")
    assert (summary["products"], summary["queries"], summary["recall"]) == (1, 1, 1.0)


def test_an_index_that_lacks_the_newest_products_is_told(shop: Path, place: Path) -> None:
    push(place)
    (shop / "catalog.csv").touch()
    assert "has changed since" in call("search", "shirt", "--index", str(place)).stderr
    edit(shop, lambda rows: rows[1:])
    assert "newer products or vectors" in call("search", "shirt", "--index", str(place)).stderr


def test_a_search_goes_on_where_the_catalog_can_not_be_compared(shop: Path, place: Path) -> None:
    push(place)
    (shop / "catalog.parquet.url").write_text("memory://shop/nothing")
    work = Workspace(CatalogFolder(shop / "catalog.parquet.url"), load_settings(shop, {}, NANO), Silent())
    found_ = IndexSearcher(work, lambda: open_engine(str(place), "afmrl search", shop)).search(Query("shirt"))
    assert found_.hits and any("not known whether the catalog has changed" in note for note in found_.notes)
    (shop / "catalog.csv").unlink()
    own_file().parent.mkdir(parents=True, exist_ok=True)
    own_file().write_text('allowed_hosts = ["memory://shop"]\n')
    done = call("search", "shirt", "--index", str(place))
    assert done.exit_code == 0 and "not known whether the catalog has changed" in done.stderr
    assert "without Parquet files" in refused("check", code=3)


def test_an_older_form_is_refused_by_search_and_replaced_by_push(shop: Path, place: Path) -> None:
    push(place)
    for file in (place / "index.json", next(place.glob("*/card.json"))):
        whole = file.read_text()
        file.write_text(whole.replace("afmrl.index/1", "afmrl.index/0"))
        said = refused("search", "shirt", "--index", str(place), code=4)
        assert "is of the form afmrl.index/0, this afmrl reads afmrl.index/1" in said
        assert push(place)["recall"] == 1.0
        assert found("shirt", index=place)


def test_a_damaged_engine_is_told(shop: Path, place: Path) -> None:
    push(place)
    next(place.glob("*/shard/segments/*/segment.json")).write_text("{")
    assert "remove the folder" in refused("search", "shirt", "--index", str(place), code=4)


@pytest.mark.parametrize("damage", ["cut", "without a field", "another form", "gone"])
@pytest.mark.parametrize("name", ["index.json", "*/card.json"])
def test_a_push_mends_what_is_damaged_but_not_for_another_catalog(
    shop: Path, place: Path, name: str, damage: str
) -> None:
    push(place)
    file = next(place.glob(name))

    def spoil() -> None:
        content = json.loads(file.read_text())
        content = {"schema": "afmrl.index/0"} if damage == "another form" else {**content, "current": "", "count": None}
        file.write_text("{" if damage == "cut" else json.dumps(content))
        if damage == "gone":
            file.unlink()

    spoil()
    if (name, damage) != ("index.json", "without a field"):
        assert str(place) in refused("search", "shirt", "--index", str(place), code=4)
    done = call("index", "push", "--to", str(place))
    assert done.exit_code == 0 and ("it is made anew" in done.stderr or damage == "without a field")
    assert found("shirt", index=place)
    spoil()
    edit(shop, lambda rows: [{**row, "id": f"other-{row['id']}"} for row in rows])
    assert "24 of its 24 products are not in this catalog" in refused("index", "push", "--to", str(place), code=2)
    push(place, "--force")
    assert "other-" in found("shirt", index=place)[0][0]


def test_an_index_of_which_nothing_can_be_read_is_replaced_with_force_alone(shop: Path, place: Path) -> None:
    place.mkdir()
    (place / "index.json").write_text('{"schema": "afmrl.index/9", "current": "elsewhere"}')
    assert "can't be read which products" in refused("index", "push", "--to", str(place), code=2)
    assert push(place, "--force")["sent"] == 24


@pytest.mark.parametrize("left", [("lock",), ("lock", "lock.json"), ("lock", "lock.json", ".writing-x.json")])
def test_a_push_that_was_killed_at_once_locks_nobody_out(shop: Path, place: Path, left: tuple[str, ...]) -> None:
    place.mkdir()
    for name in left:
        (place / name).write_text("{}")
    assert push(place)["sent"] == 24


def test_folders_that_only_look_like_an_index_are_refused(shop: Path, place: Path) -> None:
    (place / "0123456789ab").mkdir(parents=True)
    for name in ("0123456789ab/letters.txt", "index.json"):
        (place / name).write_text("[1, 2]")
        assert "holds other files" in refused("index", "push", "--to", str(place), code=2)
        (place / name).unlink()
        (place / "0123456789ab").rmdir() if name != "index.json" else None


def test_another_catalogs_index_is_not_overwritten_by_mistake(shop: Path, place: Path) -> None:
    push(place)
    edit(shop, lambda rows: [{**row, "id": f"other-{row['id']}"} for row in rows])
    said = refused("index", "push", "--to", str(place), code=2)
    assert "24 of its 24 products are not in this catalog" in said and "--force" in said
    assert push(place, "--force")["removed"] == 24


def test_places_that_can_be_no_index_are_refused(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("dear")
    for place in (shop, shop / ".afmrl" / "index", tmp_path / "mine", shop / "catalog.csv"):
        refused("index", "push", "--to", str(place), code=2)
        assert not (shop / ".afmrl" / "index").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letters.txt"]
    assert "no index here" in refused("search", "shirt", "--index", str(tmp_path / "none"), code=4)
    assert not (tmp_path / "none").exists()


def test_what_an_index_can_not_do_is_refused(shop: Path, place: Path) -> None:
    push(place)
    for words in (
        ("--like", "s1", "--change", "color: red"),
        ("shirt", "--collapse", "product"),
        ("shirt", "--not", "polyester"),
        ("shirt", "--filter", "colour=red"),
        ("--like", "s1", "--not", "colr: red"),
    ):
        refused("search", *words, "--index", str(place), code=2)
    assert "no such listing" in refused("search", "--like", "s99", "--index", str(place), code=3)
    note = call("search", "shirt", "--filter", "brand=lume", "--index", str(place)).stderr
    assert "no listing has it; did you mean Luma?" in note


def test_a_second_process_waits_and_then_says_who_has_the_folder(
    shop: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(place)
    monkeypatch.setattr("afmrl_cli.index.edge.WAIT_SECONDS", 0.3)
    with (
        open_engine(str(place), "afmrl index push", shop),
        pytest.raises(DataError, match=r"afmrl index push \(process \d+\) is using it"),
        open_engine(str(place), "afmrl search", shop),
    ):
        pass


def test_nobody_waits_while_a_model_reads_the_query(shop: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(place)
    monkeypatch.setattr("afmrl_cli.index.edge.WAIT_SECONDS", 0.3)
    work = work_of(shop)
    encoder = work.embedder()
    encode, pushes = encoder.encode, list[int]()

    def meanwhile(*items, **more):
        with open_engine(str(place), "afmrl index push", shop) as engine:
            pushes.append(push_index(work_of(shop), engine).sent)
        return encode(*items, **more)

    monkeypatch.setattr(encoder, "encode", meanwhile)
    searcher = IndexSearcher(work, lambda: open_engine(str(place), "afmrl search", shop))
    assert searcher.search(Query("shirt")).hits and pushes == [0]


def test_a_missing_extra_is_an_error_of_two_lines(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None if "qdrant" in name else find_spec(name))
    for place, needed in (("../index", "qdrant_edge"), ("http://127.0.0.1:1", "qdrant_client")):
        said = refused("index", "push", "--to", place, code=2)
        assert needed in said and "pip install 'afmrl-cli[qdrant]'" in said


def test_a_full_disk_is_told_and_the_old_vectors_stay(shop: Path, make_disk: MakeDisk) -> None:
    place = make_disk("400m") / "index"
    push(place)
    old = found("shirt", index=place)
    assert call("embed", "--dimensions", "16").exit_code == 0
    ballast = fill(place.parent)
    os.truncate(ballast, ballast.stat().st_size - 2**22)
    said = refused("index", "push", "--to", str(place), "--set", "embed.dimensions=16", code=3)
    assert "MiB are free, about 128 MiB are needed" in said
    ballast.unlink()
    assert found("shirt", index=place) == old
    assert push(place, "--set", "embed.dimensions=16")["sent"] == 24


def test_a_point_that_another_program_wrote_is_told(shop: Path, place: Path) -> None:
    push(place)
    with open_engine(str(place), "afmrl search", shop) as engine:
        engine.open()
        found_ = engine.point(number_of("s1"))
        assert found_ is not None
        engine.put([number_of("s1")], found_[0][None], [{"id": "s1"}])
    assert "that afmrl did not write" in refused("search", "--like", "s1", "--index", str(place), code=4)


def test_a_filter_loses_nothing_where_more_pass_than_are_compared_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the links of its graph alone the engine would find next to nothing of a few that pass."""
    monkeypatch.setattr("afmrl_cli.index.edge.EXACT_KB", 1)
    rng = np.random.default_rng(0)
    count, some = 12_000, 600
    vectors = (rng.standard_normal((count, 16)) @ rng.standard_normal((16, 256))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folder = Folder(tmp_path)
    folder.prepare(Card("some", "some", 256, count, "", ""))
    folder.put(range(count), vectors, [{TAGS: [f"color={i % (count // some)}"]} for i in range(count)])
    folder.finish(Silent())
    right = 0
    for query in vectors[:20]:
        near = folder.nearest(query, 10, {"must": [has_value("color", ["3"])]}, effort=256)
        right += len({each.number for each in near} & {3 + 20 * i for i in np.argsort(-vectors[3::20] @ query)[:10]})
    folder.close()
    assert right >= 0.9 * 200
