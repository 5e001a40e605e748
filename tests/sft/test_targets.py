"""Right answers from each source: what passes, how it is written, what is left out and why."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.attributes.schema import folded
from afmrl_cli.attributes.task import AttributeTask, load_task
from afmrl_cli.catalog.fingerprints import Fingerprinter
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.read import open_catalog, read_products
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.errors import AfmrlError, DataError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.models.processor import load_processor
from afmrl_cli.propose import propose, settings_text
from afmrl_cli.settings import CatalogSettings, Settings
from afmrl_cli.sft.corpus import SPECIAL, TOO_LONG, Corpus, load_corpus
from afmrl_cli.sft.plan import make_plan
from afmrl_cli.sft.targets import NO_TARGET, Target, open_source, read_target, read_targets_file
from afmrl_cli.store.database import Database, StoredAttributes
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training_settings import SftSettings
from afmrl_cli.workspace import Workspace

MakeSettings = Callable[..., Settings]

SCHEMA: dict[str, object] = {
    "attributes.keys.Neck_Line.values": ["V-Neck", "Round", "Collar", "Hood", "Boat"],
    "attributes.keys.colour.values": ["red", "blue", "green", "black", "white", "grey", "pink", "brown"],
}


def corpus_of(folder: CatalogFolder, settings: Settings) -> Corpus:
    processor = load_processor(resolve_base(settings.model, "generator"))
    return load_corpus(Workspace(folder, settings, Silent()), processor, "student-1", Problems())


def texts(corpus: Corpus) -> dict[str, str]:
    return {e.product.id: e.target.text for e in (*corpus.train, *corpus.validation)}


def rewrite(folder: CatalogFolder, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """The catalog with every row changed."""
    with folder.catalog.open(newline="") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with folder.catalog.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def store(folder: CatalogFolder, settings: Settings, generator: str, text: Callable[[Product], str | None]) -> None:
    """Answers as `afmrl attributes` stores them; None is a failure."""
    task = load_task(settings.attributes, folder.root)
    with Database(folder.database) as database, Fingerprinter(database) as fingerprinter:
        rows = []
        for product in read_products(folder, settings.catalog, Problems()):
            said = text(product)
            failure = None if said is not None else "unparsable"
            key = fingerprinter.of(product)
            rows.append(StoredAttributes(key, generator, task.id, product.id, said or "?", failure, 0.0))
        database.put_attributes(rows)


def test_the_shops_columns_in_their_order(shop: CatalogFolder, settings: MakeSettings) -> None:
    corpus = corpus_of(shop, settings())
    assert texts(corpus)["S0-0"] == "colour: red; neckline: v-neck; series: n0"
    assert corpus.source.keys == ("colour", "neckline", "series") and not corpus.left_out
    assert set(texts(corpus_of(shop, settings(**{"sft.columns": "attr_series,colour"}))).values()) >= {
        "series: n0; colour: red"
    }


def test_the_schema_orders_spells_and_chooses(shop: CatalogFolder, settings: MakeSettings) -> None:
    """Its keys choose the columns, whatever stands between their words."""
    rewrite(shop, lambda row: {("attr_neck-line" if k == "attr_neckline" else k): v for k, v in row.items()})
    assert texts(corpus_of(shop, settings(**SCHEMA)))["S0-0"] == "neck_line: V-Neck; colour: red"


def test_several_values_in_the_schemas_order(settings: MakeSettings, tmp_path: Path) -> None:
    keys = {"attributes.keys.material": {"values": ["cotton", "wool", "silk"], "multiple": True}}
    task = load_task(settings(**keys).attributes, tmp_path)
    assert read_target("Material: Silk, cotton", Product("1"), task) == Target({"material": "cotton, silk"})
    assert read_target("material: linen", Product("1"), task) == "outside schema"


def test_lists_and_gaps_in_cells(shop: CatalogFolder, settings: MakeSettings) -> None:
    rewrite(shop, lambda row: row | {"attr_colour": "red|blue; bright", "attr_series": ""})
    assert texts(corpus_of(shop, settings()))["S0-0"] == "colour: red, blue, bright; neckline: v-neck"


def test_what_fails_is_counted_with_its_reason(shop: CatalogFolder, settings: MakeSettings) -> None:
    """Outside the schema, too long, or nothing at all."""
    number = iter(range(40))

    def spoil(row: dict[str, str]) -> dict[str, str]:
        i = next(number)
        bad = {1: "mauve", 3: "red " * 25}
        return row | {"attr_colour": bad.get(i, row["attr_colour"])} | ({"attr_neckline": ""} if i == 4 else {})

    rewrite(shop, spoil)
    everything: dict[str, object] = {"split.validation": 0.0, "split.test": 0.0}
    corpus = corpus_of(shop, settings(**everything, **{"sft.columns": "attr_colour"}))
    assert corpus.left_out == {TOO_LONG: 1} and len(corpus.train) == 39
    assert corpus.first[TOO_LONG][0] == "S3-0" and corpus.first[TOO_LONG][1].startswith("colour: red red")
    narrow = settings(**everything, **{"attributes.keys.colour.values": ["red", "blue"]})
    assert corpus_of(shop, narrow).left_out["outside schema"] == 40 - len(corpus_of(shop, narrow).train) > 20
    assert corpus_of(shop, settings(**everything, **{"sft.columns": "neckline"})).left_out == {NO_TARGET: 1}


def test_no_split_is_on_both_sides_and_test_is_nowhere(shop: CatalogFolder, settings: MakeSettings) -> None:
    chosen = settings(**{"split.test": 0.3})
    corpus = corpus_of(shop, chosen)
    products = {product.id: product for product in read_products(shop, chosen.catalog, Problems())}
    for examples, side in ((corpus.train, "train"), (corpus.validation, "validation")):
        assert examples and {split_of(products[e.product.id], chosen.split) for e in examples} == {side}


def _task(shop: CatalogFolder, settings: Settings) -> AttributeTask:
    return load_task(settings.attributes, shop.root)


def test_each_epoch_has_every_product_once_in_another_order(shop: CatalogFolder, settings: MakeSettings) -> None:
    chosen = settings(**{"sft.steps": 0, "sft.epochs": 2, "sft.batch_size": 1, "sft.chunk_size": 1})
    corpus = corpus_of(shop, chosen)
    plan = make_plan(corpus, _task(shop, chosen), chosen, resolve_base(chosen.model, "generator"))
    ids = [plan[i].product.id for i in range(len(plan))]
    half = len(corpus.train)
    assert len(ids) == 2 * half and sorted(ids[:half]) == sorted(ids[half:]) == sorted(
        e.product.id for e in corpus.train
    )
    assert ids[:half] != ids[half:]


def test_only_keys_of_sparse_columns_are_dropped(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """series is filled for one product in four: dropped with probability 0.8 * 0.75; the others never."""
    number = iter(range(40))
    rewrite(shop, lambda row: row | {"attr_series": "n" if next(number) % 4 == 0 else ""})
    monkeypatch.setattr(SftSettings, "key_dropout", 0.8)
    chosen = settings(**{"sft.steps": 500, "split.validation": 0.0, "split.test": 0.0})
    corpus = corpus_of(shop, chosen)
    assert corpus.sparse == {"colour": 0.0, "neckline": 0.0, "series": 0.75}
    plan = make_plan(corpus, _task(shop, chosen), chosen, resolve_base(chosen.model, "generator"))
    drawn = [plan[i] for i in range(len(plan))]
    assert all({"colour", "neckline"} <= e.target.pairs.keys() for e in drawn)
    filled = [e for e in drawn if e.product.given.get("series")]
    kept = sum("series" in e.target.pairs for e in filled) / len(filled)
    assert len(filled) == 500 and abs(kept - 0.4) < 0.07
    assert [plan[i].target for i in range(50)] == [e.target for e in drawn[:50]], "the same at every look"
    assert all("series" in e.target.pairs for e in corpus.train if e.product.given.get("series"))


def test_a_teacher_by_id_model_name_or_alone(shop: CatalogFolder, settings: MakeSettings) -> None:
    chosen = settings(**{"sft.source": "teacher"})
    store(shop, chosen, "big-model-0123456789", lambda p: f"Colour: {p.given['colour']}" if p.id != "S1-0" else None)
    for name in ("", "big-model-0123456789", "/models/Big_Model/", "vendor/big-model"):
        corpus = corpus_of(shop, settings(**{"sft.source": "teacher", "sft.teacher": name}))
        assert corpus.source.teacher == "big-model-0123456789" and texts(corpus)["S0-0"] == "colour: red"
        assert corpus.left_out in ({}, {"unparsable": 1}), "S1-0 may stand in the test split"
    store(shop, chosen, "other-0123456789", lambda p: "colour: blue")
    with pytest.raises(UsageError, match=r"several generators have written attributes: .*other-0123456789 \(40\)"):
        corpus_of(shop, chosen)
    store(shop, chosen, "big-model-abcdefghij", lambda p: "colour: blue")
    with pytest.raises(UsageError, match="may be any of"):
        corpus_of(shop, settings(**{"sft.source": "teacher", "sft.teacher": "big-model"}))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({}, DataError, "no attributes by a teacher; stored are attributes by: none"),
        ({"sft.teacher": "qwen"}, DataError, "no attributes by qwen; stored are attributes by: none"),
        ({"sft.source": "file"}, UsageError, "sft.source = file needs a file"),
        ({"sft.source": "file", "sft.file": "nowhere.csv"}, DataError, "nowhere.csv: can't be read: No such file"),
        ({"sft.source": "columns", "sft.columns": "fabric"}, UsageError, "sft.columns: no column 'fabric'"),
        (
            {"sft.source": "columns", "attributes.keys.fabric.values": ["wool"]},
            DataError,
            r"no column is named like a key of the schema \(fabric\)",
        ),
        (
            {"sft.source": "columns", "attributes.keys.colour.values": ["mauve"]},
            DataError,
            "no targets from columns colour for the training products: outside schema in",
        ),
        ({"sft.source": "columns", "attributes.max_new_tokens": 8}, DataError, f"{TOO_LONG} in"),
    ],
)
def test_nothing_to_learn_from(
    shop: CatalogFolder, settings: MakeSettings, changes: dict[str, object], kind: type[AfmrlError], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        corpus_of(shop, settings(**({"sft.source": "teacher"} | changes)))
    assert error.value.hint and "\n" not in str(error.value)


def test_answers_of_a_teacher_that_saw_unknown_products_are_learnt_and_reported(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    """A store of an earlier version has them under the whole product, however many photos a teacher is shown now."""
    chosen = settings(**{"sft.source": "teacher", "model.generator_images": 1})
    task, notes = load_task(chosen.attributes, shop.root), list[str]()

    class Heard(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    with Database(shop.database) as database, Fingerprinter(database) as fingerprinter:
        products = list(read_products(shop, chosen.catalog, Problems()))
        keys = fingerprinter.of_all(products)
        database.put_attributes(
            [
                StoredAttributes(key, "big-1", task.id, product.id, "colour: red", None, 0.0, viewed=False)
                for key, product in zip(keys, products, strict=True)
            ]
        )
    processor = load_processor(resolve_base(chosen.model, "generator"))
    corpus = load_corpus(Workspace(shop, chosen, Heard()), processor, "student-1", Problems())
    number = len(corpus.train) + len(corpus.validation)
    assert number and not corpus.left_out
    assert f"{number:,} targets of teacher big-1 are of an earlier version" in " ".join(notes)


def test_a_teacher_with_another_schema(shop: CatalogFolder, settings: MakeSettings) -> None:
    store(shop, settings(), "big-0123456789", lambda p: "colour: red")
    with pytest.raises(DataError, match="no target in") as error:
        corpus_of(shop, settings(**SCHEMA, **{"sft.source": "teacher"}))
    assert "same schema" in error.value.hint


def test_no_attribute_columns(shop: CatalogFolder, settings: MakeSettings) -> None:
    rewrite(shop, lambda row: {k.removeprefix("attr_"): v for k, v in row.items()})
    with pytest.raises(DataError, match="no column's name begins with attr_") as error:
        corpus_of(shop, settings())
    assert "colour, neckline, series" in error.value.hint


def test_a_file_as_exported_or_with_pairs(shop: CatalogFolder, settings: MakeSettings, tmp_path: Path) -> None:
    (shop.root / "right.csv").write_text("id,attributes,attr_c\nS0-0,Colour: red,red\nS1-0,,\nS2-0,a: <|im_end|>,\n")
    chosen = settings(**{"sft.source": "file", "sft.file": "right.csv", "split.test": 0.0})
    corpus = corpus_of(shop, chosen)
    assert texts(corpus) == {"S0-0": "colour: red"} and corpus.left_out == {NO_TARGET: 38, SPECIAL: 1}

    lines = [{"sku": "S0-0", "pairs": {"Colour": "red; dark", "material": ["wool", "silk"], "fit": None}}]
    (tmp_path / "right.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_targets_file(tmp_path / "right.jsonl")
    assert found == {"S0-0": "Colour: red, dark; material: wool, silk"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,colour\nS0-0,red\n", "no column with ids and one with attributes; the columns are: id, colour"),
        ("id,attributes\nS0-0,a: b\nS0-0,a: c\n", "row 3: listing S0-0 stands twice"),
        ("id,attributes\nS0-0,a: b,c\n", "row 2 .id S0-0.: row too long"),
        ("", "the file is empty"),
    ],
)
def test_files_that_are_no_use(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "right.csv").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_targets_file(tmp_path / "right.csv")
    assert error.value.hint


@pytest.mark.parametrize("columns", [3, 14])
def test_the_schema_that_init_proposes_loses_no_label(columns: int, tmp_path: Path) -> None:
    """Uncommented as it stands: several values, commas, spellings, gaps, values beyond the first rows, many columns."""
    odd = {
        0: "Cotton|Wool",
        1: "cotton",
        2: "N/A",
        3: "Silk, matt",
        4: "a: b; c.",
        5: "x" * 90,
        7: "no-iron",
        8: "no iron",
    }
    names = [f"attr_key_{i}" for i in range(columns)]
    cells = [[odd.get(i + j, f"value {i % (7 + 30 * (j == 1))}") for j in range(columns)] for i in range(700)]
    cells[650][0] = "late value"
    rows = [
        ",".join([f"S{i}", f"Scarf {i}", str(i), "simple", *(f'"{c}"' for c in row)]) for i, row in enumerate(cells)
    ]
    (tmp_path / "catalog.csv").write_text(
        "\n".join([",".join(["id", "title", "views", "type", *names]), *rows]), "utf-8"
    )
    folder = CatalogFolder(tmp_path / "catalog.csv")
    text = settings_text(propose(folder, tmp_path, CatalogSettings()))
    assert "views" not in text.split("[attributes]")[1] and "multiple = true" in text
    plain = {"sft": {"source": "columns"}, "attributes": {"max_pairs": 20}}
    uncommented = tomllib.loads(re.sub(r"^# (\[attributes|values|multiple|max_pairs)", r"\1", text, flags=re.MULTILINE))
    before, after = (
        labels(folder, Settings.model_validate(tree)) for tree in (plain, {**uncommented, "sft": plain["sft"]})
    )
    assert len(before) == 700 and all(pairs <= after[id] for id, pairs in before.items())


def labels(folder: CatalogFolder, settings: Settings) -> dict[str, set[tuple[str, str]]]:
    """(key, value) of each target by listing, compared as the schema compares them."""
    task = load_task(settings.attributes, folder.root)
    found = {}
    with Database(folder.database) as database, open_catalog(folder, settings.catalog, Problems()) as catalog:
        source = open_source(Workspace(folder, settings, Silent()), catalog, database, "")
        for product in catalog.products:
            target = read_target(source.raw(product, None)[0], product, task, source.keys)
            assert isinstance(target, Target), target
            pairs = ((key, part) for key, value in target.pairs.items() for part in value.split(", "))
            found[product.id] = {(folded(key), folded(part)) for key, part in pairs}
    return found
