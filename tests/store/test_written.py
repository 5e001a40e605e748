"""What the tool has written is no catalog and may be replaced; nothing else may."""

from __future__ import annotations

from pathlib import Path

import pytest

from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.evaluation.trec import write_run
from afmrl_cli.store.folder import CatalogFolder, check_output, find_folder, keep_catalog
from afmrl_cli.store.written import written_by_afmrl

OURS = {
    "problems.csv": "\ufeffrow,column,listing,severity,kind,message,mend\n2,,a,error,x,y,z\n",
    "pairs.csv": "group,score,review,id,other_id,verdict,title,shared_words\n",
    "attributes.csv": "id,attributes,attr_colour,attr_size,failure\n1,colour: red,red,,\n",
    "sure.csv": "id,attributes,attr_colour,failure,confidence\n1,colour: red,red,,colour: 0.9000\n",
    "sure.jsonl": '{"id": "1", "attributes": "a: b", "pairs": {"a": "b"}, "failure": "", "confidence": {"a": 0.9}}\n',
    "attributes.jsonl": '{"id": "1", "attributes": "a: b", "pairs": {"a": "b"}, "failure": ""}\n',
    "ranks.csv": "customer,time,item,history,popularity,fused,sequential\n",
    "report.xml": '<?xml version="1.0"?>\n<testsuites>\n  <testsuite name="afmrl.eval.identity" tests="1">\n',
    "empty.csv": "",
}
THEIRS = {
    "catalog.csv": "id,title\n1,a\n",
    "histories.csv": "customer,time,item,history\n1,2024-05-01,A,3\n",
    "stock.csv": "id,attributes,stock\n1,x,2\n",
    "feed.xml": "<rss><channel><item><id>1</id></item></channel></rss>",
    "more.jsonl": '{"id": "1", "title": "a"}\n',
    "junit.xml": '<testsuites><testsuite name="other"/></testsuites>',
}


@pytest.mark.parametrize("name", OURS)
def test_results_are_known_by_what_they_hold(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(OURS[name], "utf-8")
    assert written_by_afmrl(file)
    (tmp_path / "shop.csv").write_text("id,title\n1,a\n")
    check_output(file, CatalogFolder(tmp_path / "shop.csv"), "--out")


@pytest.mark.parametrize("name", THEIRS)
def test_a_retailers_files_are_not(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(THEIRS[name], "utf-8")
    assert not written_by_afmrl(file)
    (tmp_path / "shop.csv").write_text("id,title\n1,a\n")
    with pytest.raises(UsageError, match="did not write it"):
        check_output(file, CatalogFolder(tmp_path / "shop.csv"), "--out")


def test_a_photo_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("id,image\n1,a.jpg\n")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 drawn by afmrl")
    with pytest.raises(UsageError, match="did not write it"):
        check_output(tmp_path / "a.jpg", CatalogFolder(tmp_path / "catalog.csv"), "--out")


def test_a_run_file_is_known(tmp_path: Path) -> None:
    write_run(tmp_path / "run.trec", {"a query": {"1": 0.5, "2": -0.25}.items()}, "nano")  # type: ignore[dict-item]
    assert written_by_afmrl(tmp_path / "run.trec")


def test_results_beside_a_catalog_are_no_second_one(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,title\n1,a\n")
    for name, text in OURS.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "empty.csv").unlink()
    assert find_folder(tmp_path).catalog.name == "shop.csv"


def test_hidden_files_lock_files_and_folders_are_no_catalogs(tmp_path: Path) -> None:
    for name in (".hidden.csv", "~$shop.xlsx", "shop.csv"):
        (tmp_path / name).write_text("id,title\n1,a\n")
    (tmp_path / "earlier.csv").mkdir()
    assert find_folder(tmp_path).catalog.name == "shop.csv"
    (tmp_path / "shop.csv").unlink()
    with pytest.raises(DataError, match=r"no catalog here$"):
        find_folder(tmp_path)


def test_a_result_takes_no_folders_place_and_none_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,title\n1,a\n")
    (tmp_path / "pages").mkdir()
    folder = CatalogFolder(tmp_path / "shop.csv")
    for place, said in (
        ("pages", "is a folder"),
        (".afmrl/runs/a.html", "lies inside .afmrl"),
        ("pages/../.afmrl/a.html", "lies inside .afmrl"),
        ("shop.csv", "the retailer's own file"),
        ("afmrl.toml", "the retailer's own file"),
    ):
        with pytest.raises(UsageError, match=said):
            check_output(tmp_path / place, folder, "--out")
    with pytest.raises(UsageError, match="the retailer's own file"):
        check_output(tmp_path / "queries.csv", folder, "--out", [None, tmp_path / "queries.csv"])
    check_output(tmp_path / "pages" / "new.html", folder, "--out")


def test_results_alone_are_none(tmp_path: Path) -> None:
    (tmp_path / "problems.csv").write_text(OURS["problems.csv"], "utf-8")
    with pytest.raises(DataError, match=r"no catalog here but problems.csv \(written by afmrl\)"):
        find_folder(tmp_path)


def test_a_folder_with_a_store_keeps_its_catalog(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,title\n1,a\n")
    keep_catalog(find_folder(tmp_path))
    (tmp_path / "stock.csv").write_text("id,stock\n1,2\n")
    assert find_folder(tmp_path).catalog.name == "shop.csv"
    keep_catalog(CatalogFolder(tmp_path / "stock.csv"))
    assert find_folder(tmp_path).catalog.name == "shop.csv", "another file given once does not take its place"
    (tmp_path / "shop.csv").unlink()
    assert find_folder(tmp_path).catalog.name == "stock.csv"
    keep_catalog(find_folder(tmp_path))
    (tmp_path / "prices.csv").write_text("id,price\n1,2\n")
    assert find_folder(tmp_path).catalog.name == "stock.csv", "of the first only the name is left"


@pytest.mark.parametrize("noted", [b"../elsewhere.csv", b"\xff\xfe", b"", b"a\0b"])
def test_a_damaged_note_is_no_harm(tmp_path: Path, noted: bytes) -> None:
    (tmp_path / "shop.csv").write_text("id,title\n1,a\n")
    (tmp_path / ".afmrl").mkdir()
    (tmp_path / ".afmrl" / "catalog").write_bytes(noted)
    assert find_folder(tmp_path).catalog.name == "shop.csv"
    keep_catalog(CatalogFolder(tmp_path / "shop.csv"))
