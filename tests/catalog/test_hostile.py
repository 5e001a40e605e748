"""Whatever a shop's files hold: a known failure or a result, never a traceback.

Some hundred inputs of the fuzz script, what it found, and properties that hypothesis looks for holes in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from afmrl_cli.catalog.images import ImageProblem, open_image
from afmrl_cli.catalog.markup import plain_text
from afmrl_cli.catalog.photo_cells import image_cells
from afmrl_cli.catalog.problems import WARNINGS, Problems
from afmrl_cli.catalog.read import open_catalog
from afmrl_cli.cli.app import app
from afmrl_cli.errors import AfmrlError, DataError, UsageError
from afmrl_cli.evaluation.labels import read_labels
from afmrl_cli.evaluation.trec import read_qrels, read_queries, read_run
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from tests.catalog.shop import found, photo, read, write

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
HOSTILE = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MARKS = st.sampled_from(
    ['"', ",", ";", "\t", "\r", "\n", "\0", "<", "&", "]]>", "[", "{", "..", "/", "\ufeff", "\x1b["]
)
NASTY = st.lists(TEXT | MARKS, max_size=6).map("".join)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def gone_through(file: Path, **chosen: object) -> None:
    """Read all of `file`: products with an id each, problems of known kinds, or one known failure of a few lines."""
    problems = Problems()
    try:
        with open_catalog(CatalogFolder(file), CatalogSettings.model_validate(chosen), problems) as catalog:
            ids = [product.id for product in catalog.products]
    except AfmrlError as error:
        assert len(str(error)) < 2000
        return
    assert all(ids) and len(set(ids)) == len(ids)
    assert sum(problems.counts.values()) >= problems.errors


def test_some_inputs_of_the_fuzz_script(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--quick", "--seed", "7", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 inputs" in done.stdout and "0 with a fault" in done.stdout


@pytest.mark.slow
def test_the_fuzz_script_sees_faults(tmp_path: Path) -> None:
    """A reader that reads, writes and says what it must not is caught."""
    bad = (
        "import afmrl_cli.cli.check as check\n"
        "real = check._show_content\n"
        "def show(folder, summary, out):\n"
        "    secret = (folder.root.parent / 'outside' / 'secret.csv').read_text()\n"
        "    (folder.root / 'left.txt').write_text('x')\n"
        "    out.text(secret)\n"
        "    real(folder, summary, out)\n"
        "check._show_content = show\n"
        "import sys\n"
        "from benchmarks.fuzz import main\n"
        "sys.argv = ['fuzz', '--worker', '0:8:1']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", bad], capture_output=True, text=True, cwd=ROOT, timeout=300)
    faults = " ".join(json.loads(line).get("fault", "") for line in done.stdout.splitlines())
    for words in (
        "outside/secret.csv",
        "left.txt to write",
        "shows what stands in a file outside",
        "a file was changed",
    ):
        assert words in faults, done.stdout + done.stderr


@HOSTILE
@given(content=st.binary(max_size=400), suffix=st.sampled_from(["csv", "jsonl", "xml", "xlsx", "parquet", "csv.gz"]))
@example(content=b"PAR1" * 3, suffix="csv")
@example(content=b"\x1f\x8b\x08\0\0\0\0\0\0\0", suffix="csv")
@example(content=b"PK\x03\x04" + bytes(40), suffix="jsonl")
def test_any_bytes(content: bytes, suffix: str) -> None:
    with folder() as place:
        gone_through(write(place / f"catalog.{suffix}", content))


@HOSTILE
@given(
    name=st.sampled_from(sorted(path.name for path in DATA.iterdir() if path.suffix != ".md")),
    at=st.floats(0, 1),
    length=st.integers(0, 40),
    piece=NASTY.map(str.encode) | st.binary(max_size=20),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]),
)
def test_a_damaged_export(name: str, at: float, length: int, piece: bytes, encoding: str) -> None:
    content = (DATA / name).read_text("utf-8").encode(encoding, "replace")
    place = int(at * len(content))
    with folder() as root:
        gone_through(write(root / name, content[:place] + piece + content[place + length :]))


@HOSTILE
@given(rows=st.lists(st.lists(NASTY, max_size=5), max_size=6), delimiter=st.sampled_from(",;\t|"))
def test_any_cells_of_a_csv(rows: list[list[str]], delimiter: str) -> None:
    lines = ["id,title,image,gtin".replace(",", delimiter), *(delimiter.join(row) for row in rows)]
    with folder() as place:
        gone_through(write(place / "catalog.csv", "\n".join(lines)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["url", "src", ""]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@HOSTILE
@given(st.lists(st.dictionaries(st.sampled_from(["id", "title", "image", "category", "gtin", ""]), JSON), max_size=4))
def test_any_values_of_jsonl(records: list[dict]) -> None:
    with folder() as place:
        gone_through(write(place / "catalog.jsonl", "\n".join(map(json.dumps, records))))


@HOSTILE
@given(NASTY)
def test_any_cell_of_photos_and_any_markup(text: str) -> None:
    assert all(part and part == part.strip() for part in image_cells(text, ""))
    assert isinstance(plain_text(f"<p>{text}</p>&lt;b&gt;"), str)


@HOSTILE
@given(st.text(max_size=60) | NASTY, st.sampled_from(["", "[catalog]\n", "[catalog.columns]\nid = ", "attributes."]))
def test_any_settings_file(text: str, start: str) -> None:
    with folder() as place:
        write(place / "afmrl.toml", (start + text).encode("utf-8", "surrogatepass"))
        try:
            load_settings(place, environment={})
        except UsageError as error:
            assert len(str(error)) < 2000


@HOSTILE
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF"]))
def test_a_damaged_photo(at: int, piece: bytes, form: str) -> None:
    with folder() as place:
        Image.effect_noise((9, 7), 50).convert("RGB").save(place / "whole", form)
        content = (place / "whole").read_bytes()
        at %= len(content)
        damaged = write(place / "photo", content[:at] + piece + content[at + len(piece) :])
        try:
            opened = open_image(damaged, CatalogSettings())
        except ImageProblem as problem:
            assert problem.reason
        else:
            assert opened.mode == "RGB" and opened.width * opened.height <= CatalogSettings().max_image_pixels


@HOSTILE
@given(NASTY | st.binary(max_size=60).map(lambda data: data.decode("latin-1")), st.booleans())
def test_any_query_file(text: str, as_json: bool) -> None:
    readers = (
        read_queries,
        read_qrels,
        lambda file: read_run(file, ["q"], ["1"]),
        lambda file: read_labels(file, ["1"], lambda problem: None),
    )
    line = json.dumps({"qid": "q", "text": text, "images": text}) if as_json else text
    with folder() as place:
        file = write(place / "queries", line)
        for reader in readers:
            try:
                reader(file)
            except DataError as error:
                assert len(str(error)) < 2000


@settings(HOSTILE, max_examples=15)
@given(content=st.binary(max_size=200) | NASTY.map(lambda text: f"id,title\n1,{text}\n{text}".encode()))
def test_check_and_init_on_anything(content: bytes) -> None:
    with folder() as place:
        write(place / "catalog.csv", content)
        for words in (["check", str(place), "--json"], ["init", str(place)], ["check", str(place)]):
            done = CliRunner().invoke(app, words)
            assert done.exit_code in (0, 1, 3) and isinstance(done.exception, SystemExit | None), done.output
        assert [path.name for path in place.iterdir()] == ["catalog.csv"]


# What the fuzz script found


def test_json_nested_a_thousand_deep(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    file = write(tmp_path / "catalog.csv", f"id,title,image\n1,a,{deep}\n")
    assert found(read(file)[1]) == [("missing image", 2)]
    with pytest.raises(DataError, match="not JSON"):
        read_queries(write(tmp_path / "queries.jsonl", f'{{"qid": "q", "text": {deep}}}'))
    with pytest.raises(UsageError, match="not valid TOML"):
        load_settings(write(tmp_path / "afmrl.toml", f"a = {deep}").parent, environment={})


def test_times_that_python_has_no_words_for(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    big = pa.array([2**62, 86_400_000], pa.int64())
    columns = {
        "id": ["1", "2"],
        "title": ["a", "b"],
        "far": big.view(pa.timestamp("ms")),
        "where": big.view(pa.timestamp("ms", "Mars/Olympus")),
        "long": big.view(pa.duration("ms")),
        "many": pa.array([[1], []], pa.list_(pa.date32())),
    }
    parquet.write_table(pa.table(columns), tmp_path / "catalog.parquet")
    products, problems = read(tmp_path / "catalog.parquet")
    assert products[1].given["far"] == products[1].given["where"] == "1970-01-02 00:00:00.000"
    assert "out of range" in products[0].given["far"] and not problems.counts


def test_a_parquet_column_whose_name_is_not_utf8(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    file = tmp_path / "catalog.parquet"
    parquet.write_table(pa.table({"id": ["1"], "title": ["a"]}), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"title", b"t\xff\xfele"))
    with pytest.raises(DataError, match="damaged"):
        read(file)
    assert CliRunner().invoke(app, ["check", str(file)]).exit_code == 3


def test_half_a_surrogate_pair_in_a_namespace(tmp_path: Path) -> None:
    bad = '<item><id>1</id><title xmlns="http:&#xD800;">a</title></item>'
    file = write(tmp_path / "feed.xml", f"<rss>{bad}<item><id>2</id><title>b</title></item></rss>")
    products, problems = read(file)
    assert [product.id for product in products] == ["2"]
    assert "not UTF-8; the product is skipped" in " ".join(p.message for p in problems.first("broken xml"))


def test_settings_name_no_file_outside_of_the_folder(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    write(tmp_path / "other" / "secret.csv", "id,title\n1,secret {product}\n")
    write(shop / "catalog.csv", "id,title\n1,a\n")
    for name in ("../other/secret.csv", str(tmp_path / "other" / "secret.csv"), "x/\\u0000", "a" * 5000):
        write(shop / "afmrl.toml", f'catalog.path = "{name}"\n')
        done = CliRunner().invoke(app, ["check", str(shop)])
        assert done.exit_code == 3 and "secret {" not in done.output and len(done.output) < 2000, done.output
    for name in ("../other/secret.csv", str(tmp_path / "other" / "secret.csv")):
        write(shop / "afmrl.toml", f'attributes.template = "{name}"\n')
        done = CliRunner().invoke(app, ["check", str(shop)])
        assert done.exit_code == 1 and "lies outside of the catalog's folder" in done.output
    assert not (tmp_path / "other" / ".afmrl").exists()


@pytest.mark.parametrize(
    ("content", "reader"),
    [
        ("q Q0 {} 1 1 x\n", lambda file: read_run(file, ["q"], ["1"])),
        ("q 0 1 {}\n", read_qrels),
        ("id,a\n{},1\n", lambda file: read_labels(file, ["1"], lambda problem: None)),
        ("[{}]\n", lambda file: load_settings(file.parent, environment={})),
    ],
)
def test_long_words_make_no_long_messages(content: str, reader: Callable[[Path], object], tmp_path: Path) -> None:
    file = write(tmp_path / "afmrl.toml", content.format("x" * 90_000))
    with pytest.raises(AfmrlError) as caught:
        reader(file)
    assert len(str(caught.value)) + len(caught.value.hint) < 1000


@pytest.mark.parametrize("name", ["zip", "hex", "undefined", "idna", "punycode", "a\0", "nothing"])
def test_what_is_no_encoding_of_text(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no encoding"):
        read(write(tmp_path / "catalog.csv", "id,title\n1,a\n"), encoding=name)


def test_a_photo_of_one_line(tmp_path: Path) -> None:
    """A million lines of one pixel: sixteen bytes a line in Pillow's memory, whatever the number of pixels."""
    file = tmp_path / "line.png"
    Image.new("1", (1, 70_000)).save(file)
    with pytest.raises(ImageProblem, match="1 x 70,000 pixels: a side of more than 65,535"):
        open_image(file, CatalogSettings())


# What exports look like that were never made for this


def test_lines_that_end_in_cr_alone(tmp_path: Path) -> None:
    for name, content in {
        "a.csv": b'id,title\r1,"a\rb"\r2,c\r',
        "b.jsonl": b'{"id": 1}\r{"id": 2, "title": "c"}\r',
    }.items():
        products, problems = read(write(tmp_path / name, content))
        assert products[-1].title == "c" and products[-1].row == (3 if name == "a.csv" else 2)
    assert found(problems) == [("empty product", 1)]


TITLED = "Acme product list;;;\nExported;2025-01-01;;\n\nSKU;Name;Preis;Farbe\nA-1;Rotes Hemd;5,00;rot\n"


def test_rows_above_the_column_names(tmp_path: Path) -> None:
    from openpyxl import Workbook

    products, problems = read(write(tmp_path / "a.csv", TITLED))
    assert [(p.id, p.title, p.row, p.given) for p in products] == [
        ("A-1", "Rotes Hemd", 5, {"Preis": "5,00", "Farbe": "rot"})
    ]
    assert problems.first("rows above")[0].message == "rows 1 to 3 stand above the column names and are not read"
    assert not problems.errors and "rows above" in WARNINGS
    book = Workbook()
    for row in TITLED.splitlines():
        book.active.append(row.split(";") if row else [])
    book.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx")[0] == products
    marketplace = (
        "TemplateType=x\tVersion=1\t\nSeller SKU\tProduct Name\tBrand\nitem_sku\titem_name\tbrand_name\nA\tb\tc\n"
    )
    assert [(p.id, p.title, p.row) for p in read(write(tmp_path / "b.tsv", marketplace))[0]] == [("A", "b", 4)]
    named = read(write(tmp_path / "c.csv", "List\n\nNr,Was\n1,x\n"), columns={"id": "Nr", "title": "Was"})
    assert [(p.id, p.title) for p in named[0]] == [("1", "x")]
    assert [p.id for p in read(write(tmp_path / "d.csv", "sku,title\nsku,name\n1,a\n"))[0]] == ["sku", "1"]


def test_photos_of_json_objects_and_paths_of_categories(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    record = {"id": 1, "images": [{"url": "a.png", "alt": "x"}, {"src": "b.png"}], "categories": [["Tops", "Shirts"]]}
    file = write(tmp_path / "c.jsonl", json.dumps(record) + '\n{"id": 2, "images": {"path": "b.png"}}\n')
    products, problems = read(file)
    assert [[path.name for path in p.images] for p in products] == [["a.png", "b.png"], ["b.png"]]
    assert products[0].category == "Tops > Shirts" and not problems.counts


def test_photos_that_lie_in_the_folder_of_photos(tmp_path: Path) -> None:
    photo(tmp_path / "fotos" / "a.png")
    photo(tmp_path / "fotos" / "w" / "s" / "b.png")
    photo(tmp_path.parent / "outside.png")
    cells = ["a.png", "C:\\\\Users\\\\me\\\\a.png", "/w/s/b.png", "/var/www/a.png", "../outside.png", "gone.png"]
    file = write(
        tmp_path / "c.jsonl", "".join(f'{{"id": {i}, "title": "x", "image": "{c}"}}\n' for i, c in enumerate(cells))
    )
    products, problems = read(file)
    assert [[path.name for path in p.images] for p in products] == [["a.png"], ["a.png"], ["b.png"], ["a.png"], [], []]
    assert found(problems) == [("image outside", 5), ("missing image", 6)]


def test_photos_beside_the_catalog_that_are_called_after_ids(tmp_path: Path) -> None:
    for name in ("SKU_1.png", "SKU-2.png", "other.png"):
        photo(tmp_path / name)
    photo(tmp_path / "deeper" / "SKU.png")
    products, _ = read(write(tmp_path / "catalog.csv", "sku,name\nSKU,x\n"))
    assert [path.name for path in products[0].images] == ["SKU-2.png", "SKU_1.png"]


def test_rows_in_quotes_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="quotes stand around whole rows"):
        read(write(tmp_path / "a.csv", '"sku,name,price"\n"1,Red shirt,5"\n'))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["shop.zip"], "no catalog here but shop.zip\n  unpack it"),
        (["old.xls"], "no catalog here but old.xls\n  save the table as XLSX or CSV"),
        (["1.jpg", "2.jpg", "3.jpg", "4.jpg"], "but 1.jpg, 2.jpg, 3.jpg, ...\n  a table is needed too"),
        (["README.txt"], "no catalog here but README.txt"),
        ([], "no catalog here\n  run afmrl inside"),
        (["list.txt"], "list.txt: the file is empty"),
        (["products.json"], "products.json: the file is empty"),
        (["a.csv", "notes.txt"], "a.csv: the file is empty"),
    ],
)
def test_what_is_there_instead_is_named(names: list[str], words: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    for command in ("check", "init"):
        done = CliRunner().invoke(app, [command, str(tmp_path)])
        assert done.exit_code == 3 and words in done.output, done.output


def test_a_price_is_no_id(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "Product,Price,Link\nRed shirt,5,https://x\nBlue shirt,6,https://y\n")
    done = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert done.exit_code == 3 and "no id column" in done.output
    assert "AFMRL_DEBUG" not in os.environ
