"""`afmrl interactions` as a person types it, on written files of each kind, with each thing that is wrong in them."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recommend.shop import call, counts, document, loaded, rows, shop

NOON = 1_714_566_600
"""2024-05-01 12:30:00 UTC"""
PLAIN = "customer,item,time\n"
SHOPIFY = (
    "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem sku,Billing Name,"
    "Billing Street,Billing Phone,Cancelled at,Refunded Amount\n"
)
ORDERS = (
    '#1,anna@shop.example,paid,2024-05-01 14:30:00 +0200,1,Linen shirt,A-1,Anna Ott,"Hauptstr. 5",+49 170 1234567,,0\n',
    "#1,,,,2,Wool hat,C-1,,,,,\n",
    "#2,ben@shop.example,refunded,2024-05-02 14:30:00 +0200,1,Linen shirt navy,A-1,Ben,,,,10\n",
    "#2,,,,1,Wool hat,C-1,,,,,\n",
    "#3,ben@shop.example,partially_refunded,2024-05-03 14:30:00 +0200,1,Denim jacket - L,,Ben,,,,10\n",
    "#4,carl@shop.example,paid,2024-05-04 14:30:00 +0200,1,Denim jacket,B-1,Carl,,,2024-05-05 10:00:00 +0200,0\n",
)


def test_a_plain_file_is_read_counted_and_stored(tmp_path: Path) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01T12:30:00Z\nann,A-1,2024-05-02\nbob,B-1,1714566600\n")
    content = document(root)
    assert content["schema"] == "afmrl.interactions/1"
    assert (content["interactions"], content["customers"], content["items"], content["repeats"]) == (3, 2, 2, 1)
    assert content["history"] == {"median": 1.5, "p90": 1.9, "most": 2, "of_one": 1}
    assert content["first"] == "2024-05-01T12:30:00Z" and content["last"] == "2024-05-02T00:00:00Z"
    assert rows(root) == [(NOON, "A-1", 1.0), (NOON, "B-1", 1.0), (1714608000, "A-1", 1.0)]
    assert document(root)["read_before"] is True
    assert "stored before" in call(root).output


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet", "xlsx", "csv.gz", "cp1252"])
def test_every_kind_of_table_says_the_same(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {"Kunde": ["Jörg", "Jörg"], "Artikelnummer": ["A-1", "B-1"], "Zeit": ["2024-05-01", "2024-05-02"]}
    )
    root = shop(tmp_path)
    if kind == "parquet":
        table.to_parquet(root / "interactions.parquet")
    elif kind == "xlsx":
        table.to_excel(root / "interactions.xlsx", index=False)
    elif kind == "jsonl":
        table.to_json(root / "interactions.jsonl", orient="records", lines=True)
    else:
        text = table.to_csv(index=False, sep="\t" if kind == "tsv" else ";")
        if kind == "csv.gz":
            (root / "interactions.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            name = "interactions.tsv" if kind == "tsv" else "interactions.csv"
            (root / name).write_bytes(text.encode("cp1252" if kind == "cp1252" else "utf-8"))
    assert [row[1] for row in rows(root)] == ["A-1", "B-1"]
    assert "rg" not in json.dumps(document(root)["files"][0]["notes"])


def test_times_of_parquet_keep_their_zone_whatever_the_settings_say(tmp_path: Path) -> None:
    root = shop(tmp_path, toml='[recommend]\ntimezone = "Asia/Tokyo"\n')
    times = pd.to_datetime(["2024-05-01T14:30:00+02:00"]).tz_convert("Europe/Berlin")
    pd.DataFrame({"user_id": [7], "sku": ["A-1"], "timestamp": times}).to_parquet(root / "interactions.parquet")
    assert rows(root) == [(NOON, "A-1", 1.0)]


@pytest.mark.parametrize(
    ("names", "toml"),
    [
        ("user_id;product_sku;order_date", ""),
        ("Kunden-Nr.;Artikel-Nr.;Bestelldatum", ""),
        ("client;référence produit;date commande", ""),
        ("cliente;código produto;data do pedido", ""),
        ("klant;artikelnummer;besteldatum", ""),
        ("покупатель;товар;дата заказа", ""),
        ("会員番号;商品番号;注文日", ""),
        ("visitorid;itemid;timestamp", ""),
        ("reviewerID;asin;unixReviewTime", ""),
        ("CustomerID;StockCode;InvoiceDate", ""),
        ("Kundennummer;Artikelnummer;Erstelldatum", ""),
        ("a;b;c", '[recommend.columns]\ncustomer = ["a"]\nitem = ["b"]\ntime = "c"\n'),
    ],
)
def test_columns_are_found_by_the_names_that_shops_use(tmp_path: Path, names: str, toml: str) -> None:
    root = shop(tmp_path, f"{names}\nann;A-1;2024-05-01T12:30:00Z\n", toml=toml)
    assert rows(root) == [(NOON, "A-1", 1.0)]


def test_guests_of_a_table_of_orders_are_known_by_their_address(tmp_path: Path) -> None:
    text = "increment_id,created_at,customer_id,customer_email,sku,qty_ordered,status\n"
    text += "5,2024-05-01 12:30,,a@b.example,A-1,2,complete\n6,2024-05-01 12:30,7,c@b.example,A-1,1,closed\n"
    content = document(shop(tmp_path, text))
    assert content["customers"] == 2 and content["files"][0]["columns"]["customer"] == ["customer_email", "customer_id"]


def test_a_column_that_is_missing_is_named_with_its_setting(tmp_path: Path) -> None:
    found = call(shop(tmp_path, "customer,item,colour\nann,A-1,red\n"))
    assert found.exit_code == 3
    assert "no time column; the columns are: customer, item, colour" in found.output
    assert "[recommend.columns] time" in found.output
    (tmp_path / "afmrl.toml").write_text('[recommend.columns]\ntime = ["when"]\n')
    assert "recommend.columns.time names 'when'" in call(tmp_path).output


def test_items_are_found_by_id_sku_product_number_group_and_case(tmp_path: Path) -> None:
    names = ["A-1", "m4", "4006381333931", "S2", "c-1", "04006381333931", "nothing"]
    toml = '[catalog.columns]\nid = ["sku"]\n'
    root = shop(tmp_path, PLAIN + "".join(f"ann,{name},2024-05-0{i + 1}\n" for i, name in enumerate(names)), toml=toml)
    text = (root / "catalog.csv").read_text().replace("maker_code", "article_number")
    (root / "catalog.csv").write_text(text)
    assert [row[1] for row in rows(root)] == ["A-1", "C-1", "A-1", "B-1", "C-1", "A-1"]
    content = document(root)
    assert content["unknown_items"] == [{"item": "nothing", "interactions": 1}]
    assert content["known_items"] == 0.75 and content["known_interactions"] == round(6 / 7, 4)


def test_a_shopify_export_of_orders(tmp_path: Path) -> None:
    root = shop(tmp_path, SHOPIFY + "".join(ORDERS), "orders.csv")
    content = document(root, "--interactions", str(root / "orders.csv"))
    assert content["files"][0]["layout"] == "shopify"
    assert counts(content) == {"cancelled or refunded": 3}
    assert content["matched_by"] == {"id": 2, "title": 1}
    assert content["files"][0]["partly_refunded_orders"] == 1
    assert content["files"][0]["personal_columns"] == ["Email", "Billing Name", "Billing Street", "Billing Phone"]


def test_an_order_is_known_by_all_of_its_rows_wherever_they_stand(tmp_path: Path) -> None:
    found = []
    for number, order in enumerate(itertools.islice(itertools.permutations(ORDERS), 0, 720, 97)):
        root = shop(tmp_path / str(number), SHOPIFY + "".join(order))
        found.append(rows(root))
    assert found[0] == [(NOON, "A-1", 1.0), (NOON, "C-1", 2.0), (NOON + 2 * 86_400, "B-1", 1.0)]
    assert all(each == found[0] for each in found)


WOO = "order_id,order_date,status,customer_user,billing_email,billing_first_name,"


@pytest.mark.parametrize(
    "text",
    [
        WOO + "line_item_1,line_item_2\n"
        "5,2024-05-01 12:30:00,completed,0,a@b.example,An,name:A; shirt|sku:A-1|quantity:2,name:H|sku:C-1|quantity:1\n"
        "6,2024-05-02 12:30:00,refunded,0,c@b.example,Ben,name:Shirt|sku:A-1|quantity:2,\n",
        WOO + "line_items\n"
        "5,2024-05-01 12:30:00,completed,0,a@b.example,An,id:1|sku:A-1|qty:2;id:2|sku:C-1|qty:2|refunded_qty:1\n"
        "6,2024-05-02 12:30:00,wc-cancelled,0,c@b.example,Ben,id:1|sku:A-1|quantity:2\n",
        "Order Number,Order Status,Order Date,First Name (Billing),Email (Billing),SKU,Item Name,Quantity (- Refund)\n"
        "5,Completed,2024-05-01 12:30,Anna,a@b.example,A-1,Shirt,2\n5,,,,,C-1,Hat,1\n"
        "6,Refunded,2024-05-02 12:30,Ben,c@b.example,A-1,Shirt,2\n",
    ],
    ids=["items in columns", "items in one cell", "items in rows"],
)
def test_woocommerces_exports_of_orders(tmp_path: Path, text: str) -> None:
    root = shop(tmp_path, text)
    assert rows(root) == [(NOON, "A-1", 2.0), (NOON, "C-1", 1.0)]
    content = document(root)
    assert content["files"][0]["layout"] == "woocommerce"
    assert counts(content) == {"cancelled or refunded": 1}


def test_a_line_that_came_back_takes_no_other_line_of_its_order_with_it(tmp_path: Path) -> None:
    text = "order_id,order_date,status,billing_email,item_sku,item_quantity,item_refunded_qty\n"
    text += "5,2024-05-01 12:30,completed,a@b.example,A-1,2,2\n5,,,,C-1,3,1\n5,,,,B-1,1,0\n"
    root = shop(tmp_path, text)
    assert rows(root) == [(NOON, "B-1", 1.0), (NOON, "C-1", 2.0)]
    assert counts(document(root)) == {"cancelled or refunded": 1}


@pytest.mark.parametrize(
    ("status", "kept"),
    [
        *(
            ("Shipped - Returned to Seller", 0),
            ("wc-failed", 0),
            ("STORNIERT", 0),
            ("Remboursée", 0),
            ("キャンセル", 0),
        ),
        *(("Shipped", 1), ("on-hold", 1), ("partially_refunded", 1), ("not refunded", 1), ("", 1)),
    ],
)
def test_states_of_orders_in_many_words(tmp_path: Path, status: str, kept: int) -> None:
    root = shop(tmp_path, f"customer,item,time,status\nann,A-1,2024-05-01,{status}\nbob,C-1,2024-05-01,\n")
    assert document(root)["interactions"] == 1 + kept


def test_baskets_of_json_lines_are_a_row_for_each_item(tmp_path: Path) -> None:
    order = {"order_id": 1, "customer_id": 7, "created_at": NOON, "sku": ["A-1", "C-1"]}
    root = shop(
        tmp_path, json.dumps(order) + "\n" + json.dumps({**order, "order_id": 2, "sku": ["B-1"]}), "interactions.jsonl"
    )
    assert rows(root) == [(NOON, "A-1", 1.0), (NOON, "B-1", 1.0), (NOON, "C-1", 1.0)]


def test_real_dates_of_a_workbook(tmp_path: Path) -> None:
    root = shop(tmp_path)
    table = pd.DataFrame({"customer": ["ann"], "sku": ["A-1"], "date": [datetime(2024, 5, 1, 12, 30)]})
    table.to_excel(root / "interactions.xlsx", index=False)
    assert rows(root) == [(NOON, "A-1", 1.0)]


def test_what_cannot_be_used_is_counted_by_reason_with_rows(tmp_path: Path) -> None:
    text = (
        "customer,item,time,quantity\nann,A-1,2024-05-01,1\nann,A-1,soon,1\nann,A-1,,1\nann,A-1,2099-01-01,1\n"
        "ann,A-1,1970-01-01,1\n,A-1,2024-05-01,1\nguest,A-1,2024-05-01,1\nann,,2024-05-01,1\nann,A-1,2024-05-01,many\n"
        "ann,A-1,2024-05-01,0\nann,A-1\nann,Z-9,2024-05-01,1\n"
    )
    root = shop(tmp_path, text)
    content = document(root)
    assert counts(content) == {
        "no customer": 2,
        **dict.fromkeys(("unreadable time", "no time", "time in the future", "time before 1990", "no item"), 1),
        **dict.fromkeys(("unreadable quantity", "quantity of 0", "unreadable row", "not in the catalog"), 1),
    }
    assert content["left_out"]["unreadable time"]["examples"] == [
        {"file": "interactions.csv", "row": 3, "message": "written as aaaa"}
    ]
    assert "row 12: row too short: 2 cells, the header has 4" in call(root).output


def test_a_file_of_which_nothing_counts_says_why(tmp_path: Path) -> None:
    found = call(shop(tmp_path, PLAIN + "ann,Z-1,2024-05-01\nann,Z-2,2024-05-01\n"))
    assert found.exit_code == 3
    assert "no interaction that can be used: 2 not in the catalog (row 2)" in found.output
    assert "no row after the column names" in call(shop(tmp_path, PLAIN)).output
    broken = call(shop(tmp_path, '{"customer": "ann", "item": "A-1"'))
    assert (
        broken.exit_code == 3 and "1 unreadable row (row 1: broken row)" in broken.output and "ann" not in broken.output
    )


def test_days_and_months_that_cannot_be_told_apart_need_a_word(tmp_path: Path) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,03/04/2024\nbob,B-1,05/06/2024 8:15 PM\n")
    found = call(root)
    assert (
        found.exit_code == 3 and "interactions.csv: column time: nothing shows which number is the day" in found.output
    )
    assert "recommend.day_order" in found.output and not (root / ".afmrl" / "recommend" / "interactions").exists()
    assert document(root, "--day-order", "month-first")["first"] == "2024-03-04T00:00:00Z"
    assert document(root, "--day-order", "day-first")["last"] == "2024-06-05T20:15:00Z"
    (root / "interactions.csv").write_text(PLAIN + "ann,A-1,03/04/2024\nbob,B-1,05/26/2024\n")
    assert document(root)["files"][0]["day_order"] == "month-first"
    forced = document(root, "--day-order", "day-first")
    assert counts(forced) == {"unreadable time": 1} and forced["first"] == "2024-04-03T00:00:00Z"
    (root / "interactions.csv").write_text(PLAIN + "ann,A-1,03.04.2024\n")
    assert "read day-first" in call(root).output


def test_returns_take_their_purchase_with_them(tmp_path: Path) -> None:
    text = (
        "customer,item,time,event,quantity\nann,A-1,2024-05-01,purchase,1\nann,A-1,2024-05-03,purchase,1\n"
        "ann,A-1,2024-05-04,return,1\nann,A-1,2024-05-05,purchase,1\nbob,B-1,2024-05-01,purchase,3\n"
        "bob,B-1,2024-05-02,Retoure,1\ncarl,C-1,2024-05-01,purchase,-1\n"
    )
    root = shop(tmp_path, text)
    content = document(root)
    assert counts(content) == {"return": 2, "returned purchase": 1, "return without a purchase": 1}
    assert content["partly_returned"] == 1
    day = 1_714_521_600  # 2024-05-01
    assert rows(root) == [(day, "A-1", 1.0), (day, "B-1", 2.0), (day + 4 * 86_400, "A-1", 1.0)]


def test_exact_duplicates_count_once_whatever_their_clock(tmp_path: Path) -> None:
    same = ["ann,A-1,2024-05-01T12:30:00Z", "ann,A-1,2024-05-01 14:30:00 +0200", "ann,A-1,1714566600000"]
    root = shop(tmp_path, PLAIN + "\n".join(same) + "\n")
    (root / "more.csv").write_text(PLAIN + same[0] + "\n")
    content = document(root, "--interactions", str(root / "interactions.csv"), "--interactions", str(root / "more.csv"))
    assert counts(content) == {"duplicate row": 3} and content["interactions"] == 1


def test_customers_with_enormous_histories_are_left_out(tmp_path: Path) -> None:
    bot = "".join(f"bot,A-1,{NOON + i}\n" for i in range(1500))
    root = shop(tmp_path, PLAIN + bot + "ann,A-1,2024-05-01\nbob,A-1,2024-05-01\nbob,C-1,2024-05-01\n")
    content = document(root)
    assert counts(content) == {"bot": 1500} and content["most_events"] == 500
    assert content["left_out"]["bot"]["examples"][0]["message"].endswith("1,500 events")
    assert document(root, "--most-events", "1")["left_out"]["bot"]["count"] == 1502
    assert document(root, "--most-events", "2000")["left_out"] == {}


@settings(max_examples=6, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_makes_no_difference(tmp_path_factory: pytest.TempPathFactory, dice: random.Random) -> None:
    lines = ["ann,A-1,2024-05-01,1", "ann,A-1,2024-05-01,1", "ann,A-1,2024-05-02,-1", "ann,A-1,2024-05-02,2"]
    lines += ["bob,B-1,2024-05-01,1", "bob,C-1,2024-05-01,1", "bob,Z-9,2024-05-01,1", ",A-1,2024-05-01,1"]
    header, first = "customer,item,time,quantity\n", tmp_path_factory.mktemp("first")
    dice.shuffle(lines)
    root = shop(first, header + "\n".join(lines) + "\n")
    there = rows(root), counts(document(root))
    other = shop(tmp_path_factory.mktemp("other"), header + "\n".join(sorted(lines)) + "\n")
    assert there == (rows(other), counts(document(other)))


@pytest.mark.parametrize("what", ["cut", "changed", "removed", "beyond", "manifest"])
def test_a_damaged_store_is_made_again(tmp_path: Path, what: str) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01\nbob,B-1,2024-05-01\n")
    whole = rows(root)
    place = root / ".afmrl" / "recommend" / "interactions"
    item = place / "item.npy"
    if what == "cut":
        item.write_bytes(item.read_bytes()[:-1])
    elif what == "changed":
        item.write_bytes(item.read_bytes()[:-1] + b"\x07")
    elif what == "removed":
        item.unlink()
    elif what == "beyond":  # one who can write the store can also write its checksums
        from afmrl_cli.store.files import read_object, sealed, write_json

        item.write_bytes(item.read_bytes()[:-4] + b"\x07\0\0\0")
        manifest = read_object(place / "manifest.json")
        write_json(place / "manifest.json", sealed({**manifest, "files": {}}, place))
    else:
        (place / "manifest.json").write_text("[" * 100_000)
    again = loaded(root)
    assert not again.reused and rows(root) == whole


def test_a_change_of_files_catalog_or_settings_reads_anew(tmp_path: Path) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01\nbob,Z-9,2024-05-01\n")
    assert not loaded(root).reused and loaded(root).reused
    assert loaded(root, **{"recommend.test": 0.3}).reused
    assert not loaded(root, **{"recommend.timezone": "Asia/Tokyo"}).reused
    (root / "catalog.csv").write_text((root / "catalog.csv").read_text() + "Z-9,New,,,m9,red\n")
    assert not loaded(root).reused and len(rows(root)) == 2
    (root / "interactions.csv").write_text(PLAIN + "ann,A-1,2024-05-01\n")
    assert len(rows(root)) == 1


def test_a_time_that_is_no_longer_in_the_future_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01\nann,A-1,2099-05-01\n")
    assert len(rows(root)) == 1
    later = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
    monkeypatch.setattr("time.time", lambda: later)
    assert len(rows(root)) == 2


def test_check_counts_them_and_writes_nothing(tmp_path: Path) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01\nbob,Z-9,2024-05-01\n")
    before = sorted(root.rglob("*"))
    found = call(root, command="check")
    assert "interactions.csv: 1 of 1 customers with 1 products" in " ".join(found.output.split())
    assert "1 rows: 1 not in the catalog" in found.output
    content = document(root, command="check")
    assert content["interactions"]["left_out"] == {"not in the catalog": 1}
    assert sorted(root.rglob("*")) == before
    (root / "interactions.csv").write_text("nonsense\n1\n")
    found = call(root, command="check")
    assert found.exit_code == 1 and "error: bad interactions: 1" in found.output
    (root / "interactions.csv").unlink()
    assert document(root, command="check")["interactions"] is None


def test_files_are_found_named_or_refused(tmp_path: Path) -> None:
    root = shop(tmp_path / "shop")
    missing = call(root)
    assert missing.exit_code == 3 and "no interactions" in missing.output and "interactions.csv" in missing.output
    outside = tmp_path / "outside.csv"
    outside.write_text(PLAIN + "ann,A-1,2024-05-01\n")
    assert document(root, "--interactions", str(outside))["interactions"] == 1
    (root / "interactions.csv").symlink_to(outside)
    assert "is a link that leads to" in call(root).output
    (root / "interactions.csv").unlink()
    (root / "afmrl.toml").write_text('[recommend]\ninteractions = ["../outside.csv"]\n')
    assert call(root).exit_code == 2
    (root / "afmrl.toml").write_text('[recommend]\ninteractions = "gone.csv"\n')
    assert "gone.csv: no such file" in call(root).output
    (root / "afmrl.toml").unlink()
    for name in ("interactions.csv", "interactions.jsonl"):
        (root / name).write_text(PLAIN)
    assert "several files of interactions" in call(root).output


def test_interactions_beside_a_catalog_of_any_name_are_no_catalog(tmp_path: Path) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01\n")
    (root / "catalog.csv").rename(root / "shop.csv")
    assert document(root)["interactions"] == 1


def test_a_file_without_column_names_shows_none_of_its_rows(tmp_path: Path) -> None:
    named = call(shop(tmp_path, "Anna Ott,A-1,2024-05-01\nBen Ott,A-1,2024-05-01\n"))
    assert named.exit_code == 3 and "row 1 holds no column names" in named.output and "Ott" not in named.output
    found = call(shop(tmp_path, "anna@shop.example,A-1,2024-05-01\nben@shop.example,A-1,2024-05-01\n"))
    assert found.exit_code == 3 and "row 1 holds personal data" in found.output and "anna" not in found.output


def test_leave_one_out_is_named_for_what_it_leaks(tmp_path: Path) -> None:
    root = shop(
        tmp_path, PLAIN + "".join(f"ann,{item},2024-05-0{i + 1}\n" for i, item in enumerate(["A-1", "B-1", "C-1"]))
    )
    found = call(root, "--split", "last")
    assert "training holds what other customers did" in " ".join(found.output.split())
    assert document(root, "--split", "last")["split"]["test"]["interactions"] == 1
