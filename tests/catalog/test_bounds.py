"""Small files that stand for huge tables, evil Parquet, and a catalog that changes while it is read."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook
from openpyxl.utils import get_column_letter

from afmrl_cli.catalog import bounds
from afmrl_cli.catalog.bounds import column_names
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import open_catalog, read_products
from afmrl_cli.errors import DataError
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.folder import CatalogFolder

from .shop import found, read, write

XMLNS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def workbook(path: Path, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> Path:
    """A workbook whose cells name shared texts by number."""
    Workbook().save(path)
    with zipfile.ZipFile(path) as before:
        parts = {name: before.read(name) for name in before.namelist()}
    cells = [
        f'<row r="{r}">'
        + "".join(f'<c r="{get_column_letter(c)}{r}" t="s"><v>{i}</v></c>' for c, i in enumerate(row, 1))
        + "</row>"
        for r, row in enumerate(rows, 1)
    ]
    parts["xl/worksheets/sheet1.xml"] = (
        f"<worksheet {XMLNS}><sheetData>{''.join(cells)}</sheetData></worksheet>".encode()
    )
    parts["xl/sharedStrings.xml"] = f"<sst {XMLNS}>{''.join(f'<si><t>{t}</t></si>' for t in texts)}</sst>".encode()
    if b"sharedStrings" not in parts["[Content_Types].xml"]:
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
        parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace(b"</Types>", part.encode())
        kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings"
        part = f'<Relationship Id="rIdShared" Type="{kind}" Target="sharedStrings.xml"/></Relationships>'
        name = "xl/_rels/workbook.xml.rels"
        parts[name] = parts[name].replace(b"</Relationships>", part.encode())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as after:
        for name, content in parts.items():
            after.writestr(name, content)
    return path


def test_one_long_text_in_thousands_of_cells_costs_no_more_than_once(tmp_path: Path) -> None:
    texts = ["id", "title", "x" * (16 << 20), *(f"s{i}" for i in range(3000))]
    file = workbook(tmp_path / "catalog.xlsx", texts, [[0, 1], *([3 + i, 2] for i in range(3000))])
    with pytest.raises(DataError, match=r"of text|no usable product: cell too long"):
        read(file)


def test_a_text_within_the_limit_of_a_cell_is_refused_when_too_many_cells_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_CHARS", 1 << 20)
    texts = ["id", "title", "x y " * 5000, *(f"s{i}" for i in range(300))]
    file = workbook(tmp_path / "catalog.xlsx", texts, [[0, 1], *([3 + i, 2] for i in range(300))])
    with pytest.raises(DataError, match="of text"):
        read(file)
    assert len(read(workbook(tmp_path / "catalog.xlsx", texts, [[0, 1], [3, 2], [4, 2]]))[0]) == 2


def test_a_header_of_one_long_text_is_refused(tmp_path: Path) -> None:
    file = workbook(tmp_path / "catalog.xlsx", ["x y " * (1 << 18)], [[0] * 500, [0] * 500])
    with pytest.raises(DataError):
        read(file)


def test_records_with_a_key_of_their_own_each_are_read_without_it(tmp_path: Path) -> None:
    rows = [{"id": str(i), "title": "a thing", "colour": "red", f"key {i}": "v"} for i in range(3000)]
    products, problems = read(write(tmp_path / "catalog.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert len(products) == 3000 and products[-1].given == {"colour": "red"}
    assert "late column" in problems.counts


def test_columns_that_an_honest_catalog_has_are_all_read() -> None:
    wide = [[f"c{i}" for i in range(1000)] for _ in range(5)]
    assert column_names(wide) == (wide[0], [])
    sparse = [["id", "title", f"c{i % 90}"] for i in range(1000)]
    assert len(column_names(sparse)[0]) == 92


def test_thousands_of_columns_are_refused(tmp_path: Path) -> None:
    names = ",".join(f"attr_c{i}" for i in range(5_000))
    with pytest.raises(DataError, match="5,002 columns"):
        read(write(tmp_path / "catalog.csv", f"id,title,{names}\n1,a\n"))


def test_short_rows_under_a_long_header_are_refused_when_they_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_CELLS", 50_000)
    names = ["id", "title", *(f"c{i}" for i in range(300))]
    short = [[302 + i, 302 + i] for i in range(400)]
    file = workbook(tmp_path / "catalog.xlsx", [*names, *(f"s{i}" for i in range(400))], [range(302), *short])
    with pytest.raises(DataError, match="columns are too many for so many rows"):
        read(file)
    full = "".join(",".join([str(i), "x", *("v" for _ in range(300))]) + "\n" for i in range(100))
    assert len(read(write(tmp_path / "catalog.csv", ",".join(names) + "\n" + full))[0]) == 100


@pytest.mark.parametrize("levels", [100, 900, 950, 990, 5000])
def test_records_that_are_nested_deeply_cost_themselves_alone(tmp_path: Path, levels: int) -> None:
    deep = '{"id": "2", "title": "deep", "colour": ' + "[" * levels + "]" * levels + "}\n"
    objects = '{"id": "3", "title": "deep", "size": ' + '{"a":' * levels + "1" + "}" * levels + "}\n"
    file = write(tmp_path / "catalog.jsonl", '{"id": "1", "title": "a"}\n' + deep + objects)
    products, problems = read(file)
    assert [product.id for product in products] == ["1"]
    assert [row for _, row in found(problems)] == [2, 3]


def parquet(path: Path, table: pa.Table, **more: object) -> Path:
    pq.write_table(table, path, **more)
    return path


def test_a_text_that_a_parquet_file_repeats_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_CHARS", 8 << 20)
    titles = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x y " * 20_000]))
    table = pa.table({"id": [str(i) for i in range(20_000)], "title": titles})
    with pytest.raises(DataError, match="of text"):
        read(parquet(tmp_path / "catalog.parquet", table))


def nested(levels: int) -> pa.Array:
    kind, value = pa.string(), "x"
    for _ in range(levels):
        kind, value = pa.list_(kind), [value]  # type: ignore[assignment]
    return pa.array([value], kind)


def test_a_nested_column_of_parquet_ends_no_command_with_a_traceback(tmp_path: Path) -> None:
    for levels, readable in ((2, True), (30, True), (200, False)):
        file = parquet(tmp_path / "catalog.parquet", pa.table({"id": ["1"], "title": ["t"], "deep": nested(levels)}))
        if readable:
            assert [product.id for product in read(file)[0]] == ["1"]
        else:
            with pytest.raises(DataError, match="too deeply nested"):
                read(file)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_parquet_file_is_reported(tmp_path: Path, seed: int) -> None:
    import random

    rng, table = random.Random(seed), pa.table({"id": [str(i) for i in range(50)], "title": ["a thing"] * 50})
    file = parquet(tmp_path / "catalog.parquet", table, compression="none")
    content = bytearray(file.read_bytes())
    for _ in range(30):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 4, 32))):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        file.write_bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))])
        try:
            read(file)
        except DataError as error:
            assert str(file) in str(error)


def test_a_catalog_that_is_written_to_while_it_is_read_is_reported(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", "id,title\n" + "".join(f"{i},thing {i}\n" for i in range(5000)))
    products = read_products(CatalogFolder(file), CatalogSettings(), Problems())
    assert next(products).id == "0"
    with file.open("a") as more:
        more.write("new,half of it is written")
    with pytest.raises(DataError, match="was written to while it was read"):
        list(products)


def test_a_catalog_that_another_is_renamed_onto_is_read_to_its_end(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", "id,title\n" + "".join(f"{i},thing {i}\n" for i in range(5000)))
    with open_catalog(CatalogFolder(file), CatalogSettings(), Problems()) as catalog:
        first = next(catalog.products)
        write(tmp_path / "new.csv", "id,title\nz,other\n").replace(file)
        assert len([first, *catalog.products]) == 5000


def test_a_catalog_that_is_cut_off_while_it_is_read_is_reported(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", "id,title\n" + "".join(f"{i},thing {i}\n" for i in range(50_000)))
    products = read_products(CatalogFolder(file), CatalogSettings(), Problems())
    next(products)
    os.truncate(file, 1000)
    with pytest.raises(DataError, match="was written to while it was read"):
        list(products)
