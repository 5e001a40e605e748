from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from afmrl_cli.catalog.gaps import filled
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import count_rows, read_products
from afmrl_cli.catalog.seen import SeenIds
from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.folder import CatalogFolder

from .shop import found, photo, read, write

HEADER = "id,title,price\n"


def test_a_product_with_everything(tmp_path: Path) -> None:
    first, second = photo(tmp_path / "images/a.png"), photo(tmp_path / "images/b.png")
    text = "sku,name,description,category,brand,image,gtin,style_id,attr_color,price\n"
    text += 'A-1, Blouse ,"soft, ""warm""\nwool",Tops/Blouses,Luma,images/a.png|images/b.png,400,S1,navy,\n'
    (product,), problems = read(write(tmp_path / "catalog.csv", text))
    assert (product.id, product.title, product.description) == ("A-1", "Blouse", 'soft, "warm"\nwool')
    assert (product.category, product.brand, product.images) == ("Tops/Blouses", "Luma", (first, second))
    assert (product.product_id, product.group_id, product.given, product.row) == ("400", "S1", {"color": "navy"}, 2)
    assert not problems.counts


def test_an_id_that_is_a_columns_name_elsewhere_is_no_row_of_names(tmp_path: Path) -> None:
    """Nobody knows the names of the first row, and the second begins with a name that everybody knows."""
    rows = "id,blue shirt of linen\nx1,red shirt of linen\nx2,green shirt of cotton\nx3,a hat of wool\n"
    products, problems = read(write(tmp_path / "catalog.csv", "aaa,bbb\n" + rows))
    assert [product.id for product in products] == ["id", "x1", "x2", "x3"]
    assert problems.counts == {"guessed column": 2}


@pytest.mark.parametrize("name", ["catalog.csv", "feed.xml"])
def test_rows_are_counted_past_the_first_mebibyte(name: str, tmp_path: Path) -> None:
    """Text of two lines, so that what is read at a time ends within quotes."""
    text = "much\n" + "more " * 40
    if name.endswith(".csv"):
        body = "id,title\n" + "".join(f'{i},"{text}"\n' for i in range(7000))
    else:
        items = "".join(f"<item><g:id>{i}</g:id><title>{text}</title></item>" for i in range(5000))
        body = f'<rss xmlns:g="http://base.google.com/ns/1.0"><channel>{items}</channel></rss>'
    file = write(tmp_path / name, body)
    assert file.stat().st_size > 1 << 20
    assert count_rows(CatalogFolder(file), CatalogSettings()) == (7000 if name.endswith(".csv") else 5000)


FORMATS = {
    "comma.csv": "id,title,price\n1,Röd kjol,5\n2,b,\n",
    "semicolon.csv": "id;title;price\n1;Röd kjol;5\n2;b;\n",
    "commas_inside.csv": "id;title, long;price, EUR\n1;Röd kjol;5\n2;b;\n",
    "pipe.csv": "id|title|price\r\n1|Röd kjol|5\r\n2|b|\r\n",
    "tab.tsv": "id\ttitle\tprice\n1\tRöd kjol\t5\n2\tb\t\n",
    "tab.csv": "id\ttitle\tprice\n1\tRöd kjol\t5\n2\tb\t\n",
    "bom.csv": "\ufeffid,title,price\n1,Röd kjol,5\n2,b,\n",
    "no_last_line_end.csv": "id,title,price\n1,Röd kjol,5\n2,b,",
    "blank_last_lines.csv": "id,title,price\n1,Röd kjol,5\n2,b,\n\n\n",
    "excel.csv": "sep=;\nid;title;price\n1;Röd kjol;5\n2;b;\n",
    "empty_last_column.csv": "id,title,price,\n1,Röd kjol,5,\n2,b,,\n",
    "lines.jsonl": '{"id": 1, "title": "Röd kjol", "price": 5.0}\n{"id": "2", "title": "b", "price": null}\n\n',
    "bom.jsonl": '\ufeff{"id": 1, "title": "R\\u00f6d kjol", "price": 5}\n{"id": "2", "title": "b"}',
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_that_mean_the_same(name: str, tmp_path: Path) -> None:
    title = {"title": ["title, long"]} if name == "commas_inside.csv" else {}
    products, problems = read(write(tmp_path / name, FORMATS[name]), columns=title)
    assert [(p.id, p.title, *p.given.values()) for p in products] == [("1", "Röd kjol", "5"), ("2", "b")]
    assert not problems.counts
    assert count_rows(CatalogFolder(tmp_path / name), CatalogSettings()) >= 2


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    table = pa.table(
        {
            "id": [1.0, 2.0, None],
            "title": ["a", None, "c"],
            "images": [["a.png", "b.png"], ["b.png"], []],
            "sizes": [["S", "M"], [], None],
            "thumbnail": [b"\xff", b"", b""],
            "new": [True, None, False],
        }
    )
    parquet.write_table(table, tmp_path / "catalog.parquet")
    products, problems = read(tmp_path / "catalog.parquet")
    assert [(p.id, p.title, len(p.images), p.given, p.row) for p in products] == [
        ("1", "a", 2, {"sizes": "S|M", "new": "true"}, 1),
        ("2", "", 1, {}, 2),
    ]
    assert found(problems) == [("binary column", 0), ("no id", 3)]
    assert count_rows(CatalogFolder(tmp_path / "catalog.parquet"), CatalogSettings()) == 3


BAD_ROWS = {
    "a,b\n": ("row too short", 3),
    "a,b,c,d\n": ("row too long", 3),
    ",b,c\n": ("no id", 3),
    "1,again,\n": ("duplicate id", 3),
    "\n": ("empty row", 3),
    ",,\n": ("empty row", 3),
    "a,,9\n": ("empty product", 3),
    f"a,{'x' * 200},\n": ("cell too long", 3),
    "a,b\rc,d\n": ("broken row", 3),
}


@pytest.mark.parametrize("line", BAD_ROWS)
def test_a_bad_row_is_reported_and_skipped_or_fatal(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CatalogSettings, "max_field_chars", 100)
    file = write(tmp_path / "catalog.csv", HEADER + "1,first,\n" + line + "2,last,\n")
    products, problems = read(file)
    assert [p.id for p in products] == ["1", "2"]
    assert products[-1].row == 4
    assert found(problems) == [BAD_ROWS[line]]
    with pytest.raises(DataError, match=r"catalog\.csv: row 3.*" + BAD_ROWS[line][0]):
        read(file, bad_rows="fail")


def test_a_cell_with_line_breaks_is_one_row(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", HEADER + '1,"a\n\nb\r\nc",\n,no id,\n')
    (product,), problems = read(file)
    assert (product.title, product.row) == ("a\n\nb\r\nc", 2)
    assert found(problems) == [("no id", 3)]
    assert count_rows(CatalogFolder(file), CatalogSettings()) == 2


def test_an_unclosed_quote_does_not_take_the_rest_in_silence(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", HEADER + '1,a,\n2,"b,\n3,c,\n4,d,\n')
    products, problems = read(file)
    assert [p.id for p in products] == ["1"]
    assert found(problems) == [("unclosed quote", 3)]
    assert "3 lines" in problems.first("unclosed quote")[0].message


def test_a_quote_closed_much_later_shows_in_the_message(tmp_path: Path) -> None:
    _, problems = read(write(tmp_path / "catalog.csv", HEADER + '1,"a,\n2,b,\n3,c",x,y\n4,d,\n'))
    assert "it spans 3 lines" in problems.first("row too long")[0].message


@pytest.mark.parametrize("quoted", [False, True], ids=["one line", "quoted with line breaks"])
def test_a_hundred_megabyte_field_is_skipped_in_little_memory(quoted: bool, tmp_path: Path) -> None:
    file = tmp_path / "catalog.csv"
    with file.open("w") as out:
        out.write(HEADER + "1,a,\n2," + '"' * quoted)
        for _ in range(100):
            out.write("x" * 999_999 + ("\n" if quoted else "x"))
        out.write('"' * quoted + ",\n3,c,\n")
    program = (
        "import sys\nfrom pathlib import Path\nfrom tests.catalog.shop import read, found\n"
        "products, problems = read(Path(sys.argv[1]))\n"
        "print([p.id for p in products], products[-1].row, found(problems))\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, cwd=root, timeout=60)
    result, peak = done.stdout.splitlines()
    assert result == "['1', '3'] 4 [('cell too long', 3)]", done.stderr
    assert int(peak) < 120_000  # kB, with the interpreter and pydantic


NO_CATALOGS = {
    "empty.csv": (b"", "the file is empty"),
    "blank.csv": (b"\n\n", "the file is empty"),
    "header_only.csv": (b"id,title\n", "no products: there is no row after the column names"),
    "all_bad.csv": (b"id,title\n,a\n,b\n", "no usable product: no id in 2 rows, first row 2"),
    "nul.csv": (b"id,title\n1,a\n2,\0\0\n", "row 3: a NUL byte"),
    "zip.csv": (b"PK\x03\x04rest", "not an Excel workbook, or damaged"),
    "noise.csv": (bytes(range(256)) * 40, "row 1"),
    "empty.jsonl": (b"", "the file is empty"),
    "array.jsonl": (b'[{"id": 1}, {"id"', "after record 1: not JSON"),
    "no_id.jsonl": (b'{"title": "a"}\n', "no id column; the columns are: title"),
    "not_json.jsonl": (b"{id,title\n1,a\n", "broken row in 2 rows, first row 1: not JSON"),
    "old.xls": (b"\xd0\xcf\x11\xe0rest", "an old Excel file"),
    "login.csv": (b"<!DOCTYPE html><html><body>Log in", "a web page and no catalog"),
    "other.xml": (b"<a><b/></a>", "no <item>, <entry> or <product>"),
    "no.xml": (b"<", "no <item>, <entry> or <product>"),
    "damaged.csv.gz": (b"\x1f\x8bno", "damaged gzip file"),
    "cut.csv.gz": (gzip.compress(b"id,title\n1,a\n" * 99)[:-9], "damaged gzip file"),
    "damaged.parquet": (b"PAR1 and then nothing", "not a Parquet file, or damaged"),
    "empty.parquet": (b"", "the file is empty"),
    "sheet.xlsx": (b"PK\x03\x04rest", "not an Excel workbook, or damaged"),
}


@pytest.mark.parametrize("name", NO_CATALOGS)
def test_what_is_no_catalog_gives_one_clear_error(name: str, tmp_path: Path) -> None:
    content, words = NO_CATALOGS[name]
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / name, content))
    assert words in str(caught.value) and name in str(caught.value)
    assert caught.value.exit_code == 3 and caught.value.hint


def test_the_wrong_delimiter_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", "id,title,price\n1,a,2\n")
    with pytest.raises(DataError, match="row 1: a single column 'id,title,price' when split at ';'") as caught:
        read(file, delimiter=";")
    assert "','" in caught.value.hint
    with pytest.raises(UsageError, match="not one character"):
        read(file, delimiter="::")
    assert [p.title for p in read(write(tmp_path / "t.csv", "id\ttitle\n1\ta\n"), delimiter="tab")[0]] == ["a"]


def test_jsonl_rows(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    rows = [
        '{"id": "1", "title": "a", "images": ["a.png", "a.png"], "dims": {"w": 1}, "tags": ["x", "y"]}',
        '{"id": "2", "title": ',
        '["3"]',
        '{"id": "4", "title": "half \\ud800"}',
        '{"id": "5", "title": "nul \\u0000"}',
        '{"id": "6", "title": "backslash \\\\u0000 is text"}',
        "[" * 100_000,
        "",
        '{"id": "9", "title": "c"}',
    ]
    products, problems = read(write(tmp_path / "catalog.jsonl", "\n".join(rows)))
    assert [p.id for p in products] == ["1", "6", "9"]
    assert len(products[0].images) == 1
    assert products[0].given == {"dims.w": "1", "tags": "x|y"}
    assert found(problems) == [*(("broken row", row) for row in (2, 3, 4, 5, 7)), ("empty row", 8)]


def test_a_jsonl_column_that_first_comes_late_is_reported(tmp_path: Path) -> None:
    lines = [json.dumps({"id": i, "name": "x"}) for i in range(1100)] + ['{"id": "z", "name": "y", "image": "a.png"}']
    _, problems = read(write(tmp_path / "catalog.jsonl", "\n".join(lines)))
    assert found(problems) == [("late column", 1101)]


def test_joined_columns_and_json_lists_of_images(tmp_path: Path) -> None:
    for name in ("a,1.png", "b.png", "c.png"):
        photo(tmp_path / name)
    text = "id,t1,t2,main,more\n" + '1,Blouse,navy,"a,1.png","[""b.png"", ""c.png""]"\n2,,navy,,b.png;c.png\n'
    columns = {"title": ["t1", "t2"], "image": ["main", "more"]}
    products, problems = read(write(tmp_path / "catalog.csv", text), columns=columns)
    assert [p.title for p in products] == ["Blouse navy", "navy"]
    assert [[i.name for i in p.images] for p in products] == [["a,1.png", "b.png", "c.png"], ["b.png", "c.png"]]
    assert not problems.counts


def test_an_empty_column_does_not_hide_a_filled_one(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    text = "id,sku,title,name,image,image_url,price\n" + "".join(f",{i},,Shoe {i},,a.png,5\n" for i in range(150))
    products, problems = read(write(tmp_path / "catalog.csv", text))
    assert [(p.id, p.title, p.images) for p in products] == [
        (str(i), f"Shoe {i}", (tmp_path / "a.png",)) for i in range(150)
    ]
    assert not problems.counts and [p.row for p in products] == list(range(2, 152))
    late = "sku,name,image,image_url\n1,a,,\n2,b,a.png,\n"  # neither is filled in every row: the better name wins
    assert read(write(tmp_path / "catalog.csv", late))[0][1].images == (tmp_path / "a.png",)
    nothing = "sku,name,image,image_url\n1,a,,\n"
    assert read(write(tmp_path / "catalog.csv", nothing))[0][0].title == "a"


def test_photos_that_are_not_there(tmp_path: Path) -> None:
    photo(tmp_path / "shop/ok.png")
    outside = photo(tmp_path / "outside.png")
    (tmp_path / "shop/link.png").symlink_to(outside)
    (tmp_path / "shop/dir").symlink_to(tmp_path)
    (tmp_path / "shop/inner.png").symlink_to("ok.png")
    (tmp_path / "shop/loop.png").symlink_to("loop.png")
    cells = {
        "ok.png": None,
        "./ok.png": None,
        "inner.png": None,
        "dir/shop/ok.png": None,
        "gone.png": "missing image",
        "ok.png/more.png": "missing image",
        ".": None,  # a placeholder
        "x" * 5000: "missing image",
        "loop.png": "missing image",
        "../outside.png": "image outside",
        "a/../../outside.png": "image outside",
        "../": "image outside",
        str(outside): "image outside",
        "link.png": "image outside",
        "dir/outside.png": "image outside",
        "/etc/passwd": "image outside",
        "https://example.org/a,b;c.png": "image url",
        "data:image/png;base64,AAAA": "image url",
    }
    text = "id,title,image\n" + "".join(f'{i},t,"{cell}"\n' for i, cell in enumerate(cells))
    file = write(tmp_path / "shop/catalog.csv", text)
    products, problems = read(file, image_separator="|")
    assert len(products) == len(cells)  # a lost photo loses no product that has a text
    assert found(problems) == [(kind, row) for row, kind in enumerate(cells.values(), 2) if kind]
    assert all(problem.column == "image" for problem in problems.first("missing image"))
    opened, _ = read(file, image_separator="|", allow_outside=True)
    assert sum(len(p.images) for p in opened) == 4 + 6
    with pytest.raises(DataError, match="row 6, column image"):
        read(file, image_separator="|", bad_images="fail")


def test_windows_paths_and_repeated_photos(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    file = write(tmp_path / "catalog.csv", "id,image\n1,images\\a.png|images/a.png|./images/a.png\n")
    (product,), problems = read(file)
    assert [i.name for i in product.images] == ["a.png"] and not problems.counts


def test_a_fifo_is_no_photo_and_blocks_nothing(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.jpg")
    _, problems = read(write(tmp_path / "catalog.csv", "id,title,image\n1,t,a.jpg\n"))
    assert "not a plain file" in problems.first("missing image")[0].message


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8), delimiter=st.sampled_from(",;\t|"))
def test_what_a_csv_writer_writes_is_read_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["id", "title", "description", "extra"])
    for i, (title, extra) in enumerate(rows):
        writer.writerow([f"id {i}", "t" + title, title, extra])
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder).resolve() / "catalog.csv", text.getvalue())
        products, problems = read(file)
    assume("doubled encoding" not in problems.counts)  # reported and mended, as it has tests of its own
    assert not problems.counts.keys() - {"placeholder"}
    assert [(p.id, p.title, p.description) for p in products] == [
        (f"id {i}", filled(("t" + title).strip()), filled(title.strip())) for i, (title, _) in enumerate(rows)
    ]
    assert [p.given.get("extra", "") for p in products] == [filled(extra.strip()) for _, extra in rows]
    assert [p.row for p in products] == list(range(2, len(rows) + 2))


def test_products_stream(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", HEADER + "".join(f"{i},title {i},\n" for i in range(200_000)))
    stream = read_products(CatalogFolder(file), CatalogSettings(), Problems())
    assert [p.id for p in itertools.islice(stream, 3)] == ["0", "1", "2"]


def test_seen_ids_tell_the_first_row() -> None:
    seen = SeenIds()
    assert not any(seen.add(f"id-{i}", i + 2) for i in range(20_000))
    assert all(seen.add(f"id-{i}", 99_999) == i + 2 for i in range(20_000))
