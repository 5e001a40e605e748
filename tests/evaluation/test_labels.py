"""Labels from a file of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.errors import DataError
from afmrl_cli.evaluation.labels import read_labels


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, "utf-8")
    return path


def test_columns_are_found_by_their_common_names(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffSKU;GTIN;style_id;attr_Color;Note\ns1;p1;g1;Red;"two\nlines"\n\ns2;;;;x\n')
    assert read_labels(path, {"s1", "s2", "s3"}, Problems().add) == {
        "s1": {"product_id": "p1", "group_id": "g1", "color": "Red", "note": "two\nlines"},
        "s2": {"note": "x"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column with listing ids"),
        ("id\ns1\n", "no column with listing ids"),
        ("color,size\nred,1\n", "no column with listing ids"),
        ("id,color\n", "no labels"),
        ("id,color\nzz,red\n", ":2: unknown listing zz"),
        ("id,color\ns1,red\ns1,blue\n", ":3: listing s1 stands twice"),
        ("id,color\ns1,red,blue\n", ":2: 3 cells, not 2"),
        ("id,gtin,ean\ns1,1,2\n", "two columns are read as product_id"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(write(tmp_path, text), {"s1"}, Problems().add)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_labels(tmp_path / "none.csv", {"s1"}, Problems().add)
    (tmp_path / "latin.csv").write_bytes(b"id,color\ns1,gr\xfcn\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_labels(tmp_path / "latin.csv", {"s1"}, Problems().add)


def test_placeholders_and_rounded_numbers_are_no_labels_and_spellings_of_a_number_are_one(tmp_path: Path) -> None:
    rows = "A,n/a,-\nB,n/a,Red\nC,0,unknown\nD,'4006381333931,keine\nE,04006381333931,\nF,4.00638E+12,Blue|N/A\n"
    problems = Problems()
    found = read_labels(write(tmp_path, "sku,gtin,color\n" + rows), set("ABCDEF"), problems.add)
    same = {"product_id": "4006381333931"}
    assert found == {"A": {}, "B": {"color": "Red"}, "C": {}, "D": same, "E": same, "F": {"color": "Blue"}}
    assert problems.counts == {"lost digits": 1} and problems.first("lost digits")[0].row == 7
