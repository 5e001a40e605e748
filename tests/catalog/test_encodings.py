from __future__ import annotations

import time
from pathlib import Path

import pytest

from afmrl_cli.catalog.markup import plain_text
from afmrl_cli.errors import DataError, UsageError

from .shop import found, photo, read, write

SWEDISH = "id;titel;pris\n1;Röd kjol i bomull;12,50\n2;Blå klänning, färg: grön;7\n"
TEXTS = {
    "utf-8-sig": SWEDISH,
    "utf-16": SWEDISH,
    "utf-16-le": SWEDISH,
    "utf-16-be": SWEDISH,
    "utf-32": SWEDISH,
    "cp1252": SWEDISH,
    "cp1250": "id;title;price\n1;Czerwona sukienka z bawełny, długość, żółty;12,50\n2;ściągacz, różowy;7\n",
    "cp1251": "id;title;price\n1;Чёрные кожаные сапоги;12,50\n2;Шёлковый шарф, размер 38;7\n",
    "cp1253": "id;title;price\n1;Κόκκινο φόρεμα από βαμβάκι;12,50\n2;Μαύρες δερμάτινες μπότες;7\n",
    "cp932": "id;title;price\n1;綿のシャツ 半袖 レディース;12,50\n2;革のスニーカー ブラック;7\n",
    "cp949": "id;title;price\n1;남성 반팔티셔츠 빨강;12,50\n2;여성용 원피스;7\n",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_encodings_are_found(encoding: str, tmp_path: Path) -> None:
    text = TEXTS[encoding]
    products, problems = read(write(tmp_path / "catalog.csv", text.encode(encoding)))
    assert [p.title for p in products] == [line.split(";")[1] for line in text.splitlines()[1:]]
    assert next(iter(products[0].given.values())) == "12,50"  # a decimal comma is no delimiter
    legacy = not encoding.startswith("utf")
    assert list(problems.counts) == (["guessed encoding"] if legacy else [])
    if legacy:
        assert f"read as {encoding}, where it says" in problems.first("guessed encoding")[0].message


def test_jsonl_in_windows_1252_and_utf_16(tmp_path: Path) -> None:
    for encoding in ("cp1252", "utf-16"):
        line = '{"id": 1, "title": "Röd kjol – grön"}\n'
        (product,), _ = read(write(tmp_path / "catalog.jsonl", line.encode(encoding)))
        assert product.title == "Röd kjol – grön"


def test_wrong_bytes_in_the_middle_are_mended_and_reported_by_row(tmp_path: Path) -> None:
    good = "".join(f"{i},Blå klänning,grön\n" for i in range(1, 6)).encode()
    bad = "6,Röd kjol,blå\n".encode("cp1252")
    cut = b"7,Kjo" + "ö".encode()[:1] + b",x\n"
    products, problems = read(write(tmp_path / "catalog.csv", b"id,title,color\n" + good + bad + cut + good[:0]))
    assert [p.title for p in products][4:] == ["Blå klänning", "Röd kjol", "KjoÃ"]
    assert found(problems) == [("wrong byte", 7), ("wrong byte", 8)]
    assert "byte 0xF6 is not UTF-8; read as Windows-1252: '6,Röd kjol" in problems.first("wrong byte")[0].message
    assert not problems.errors


def test_the_encoding_can_be_said(tmp_path: Path) -> None:
    file = write(tmp_path / "catalog.csv", "id,title\n1,Größe\n".encode("cp850"))
    assert [p.title for p in read(file, encoding="cp850")[0]] == ["Größe"]
    with pytest.raises(UsageError, match="no encoding 'klingon'"):
        read(file, encoding="klingon")
    _, problems = read(file, encoding="ascii")
    assert found(problems) == [("wrong byte", 0)]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>Soft &amp; <b>V</b>-neck</p><ul><li>one<li>two</ul>", "Soft & V-neck\none\ntwo"),
        ("&lt;p&gt;Warm &amp;amp; soft&lt;/p&gt;", "Warm & soft"),
        ("Black &amp; White &#39;x&#39; &frac12;", "Black & White 'x' ½"),
        ("5 < 6 and AT&T; sizes <M, >XL", "5 < 6 and AT&T; sizes <M, >XL"),
        ("sizes <M, <i>new</i>", "sizes <M, new"),
        ("<style>p { color: red }</style>x<script>alert(1)</script><!-- y -->", "x"),
        ('<a href="https://example.com/?a=1&b=2">Shop</a><br/>now', "Shop\nnow"),
        ("Größe <strong>38</strong> 苹果", "Größe 38 苹果"),
        ("", ""),
    ],
)
def test_markup(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    "piece", ["<", "<b>", "<div>", "<a ", "<!--", "&", "&amp;", "<p>", "x ", "<p> ", "</", "<script>", "\n<br>"]
)
def test_markup_that_never_ends_takes_no_time(piece: str) -> None:
    start = time.process_time()
    plain_text("<p>x" + piece * (500_000 // len(piece)))
    assert time.process_time() - start < 5


def test_identities_that_are_none(tmp_path: Path) -> None:
    text = "id,title,ean\n1,a,4.00638E+12\n2,b,0\n3,c,n/a\n4,d,4006381333931\n"
    products, problems = read(write(tmp_path / "catalog.csv", text))
    assert [p.product_id for p in products] == [None, None, None, "4006381333931"]
    assert found(problems) == [("lost digits", 2), ("placeholder", 3), ("placeholder", 4)] and problems.errors == 1


def test_a_photo_column_that_stands_twice(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / name)
    text = "id\timage_link\tadditional_image_link\tadditional_image_link\n1\ta.png\tb.png\tc.png\n"
    (product,), problems = read(write(tmp_path / "catalog.tsv", text))
    assert [path.name for path in product.images] == ["a.png", "b.png", "c.png"] and not problems.counts


def test_photos_named_by_sku(tmp_path: Path) -> None:
    for name in (
        "A-1.jpg",
        "A-1_2.jpg",
        "a-1 (3).png",
        "A.jpg",
        "A_front.jpg",
        "B/1.png",
        "B/2.png",
        "C.txt.jpg",
        "x/y/D.webp",
    ):
        photo(tmp_path / "images" / name)
    write(tmp_path / "images/A-1.txt", "no photo")
    file = write(tmp_path / "catalog.csv", "sku,title\nA,x\nA-1,x\nB,x\nC,x\nD,x\n")
    products, problems = read(file)
    assert {p.id: [path.name for path in p.images] for p in products} == {
        "A": ["A.jpg", "A_front.jpg"],
        "A-1": ["A-1.jpg", "A-1_2.jpg", "a-1 (3).png"],
        "B": ["1.png", "2.png"],
        "C": ["C.txt.jpg"],
        "D": ["D.webp"],
    }
    assert not problems.counts
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert not any(p.images for p in read(file)[0])
    assert len(read(file, image_folder="elsewhere")[0][1].images) == 3
    with pytest.raises(DataError, match="no such folder"):
        read(file, image_folder="gone")
    (tmp_path / "out").symlink_to("/")
    with pytest.raises(DataError, match="leaves the catalog's folder"):
        read(file, image_folder="out")
    with_column = write(tmp_path / "with.csv", "sku,title,image\nA,x,\n")
    assert read(with_column)[0][0].images == ()
