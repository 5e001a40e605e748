"""`afmrl recommend` as a person types it."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from afmrl_cli.recommend.customers import recommend_folder
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock
from tests.cli.calls import call, document

Recommend = Callable[..., list[str]]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def customer_of(shop: Path, rows: int) -> str:
    """A customer of about so many rows."""
    counts = Counter(row["customer"] for row in table(shop / "interactions.csv"))
    return min(counts, key=lambda name: (abs(counts[name] - rows), name))


def write(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_customer_is_recommended_products_with_reasons(embedded_shop: Path, recommend: Recommend) -> None:
    name = customer_of(embedded_shop, 12)
    content = document(*recommend("--customer", name, "-k", "5"))

    assert content["schema"] == "afmrl.recommend/1"
    assert [each["rank"] for each in content["products"]] == [1, 2, 3, 4, 5]
    scores = [each["score"] for each in content["products"]]
    assert scores == sorted(scores, reverse=True)
    ids = {row["id"] for row in table(embedded_shop / "catalog.csv")}
    assert {each["id"] for each in content["products"]} <= ids
    assert all(each["why"] for each in content["products"])
    assert content["weights_fitted_on"] > 0 and set(content["weights"]) > {"history", "co-occurrence", "had"}
    assert len(content["history"]["listings"]) <= content["history"]["interactions"]
    assert content == document(*recommend("--customer", name, "-k", "5")), "the same again"


def test_the_customer_stands_nowhere_in_clear(embedded_shop: Path, recommend: Recommend, tmp_path: Path) -> None:
    name = customer_of(embedded_shop, 12)
    for words in (["--json"], ["--html", str(tmp_path / "next.html")]):
        result = call(*recommend("--customer", name, *words))
        assert result.exit_code == 0, result.output
        assert name not in result.output and name not in result.stderr
    assert name not in (tmp_path / "next.html").read_text("utf-8")
    stored = [path for path in (embedded_shop / ".afmrl").rglob("*") if path.is_file()]
    assert len(stored) > 5
    assert not [path for path in stored if name.encode() in path.read_bytes()]
    unknown = call(*recommend("--customer", "anna@shop.example"))
    assert unknown.exit_code == 3
    assert "anna" not in unknown.output + unknown.stderr
    assert "--history SKU,SKU" in unknown.stderr and unknown.stderr.count("\n") == 2


def test_every_product_shares_the_tastes_that_it_is_said_to_share(embedded_shop: Path, recommend: Recommend) -> None:
    """All tops of one colour in the history: what is recommended says so only where it is so."""
    rows = table(embedded_shop / "catalog.csv")
    colours = Counter(row["attr_colour"] for row in rows)
    colour = max(colours, key=lambda name: colours[name] if 4 <= colours[name] <= len(rows) / 5 else 0)
    same = [row["id"] for row in rows if row["attr_colour"] == colour][:4]

    content = document(*recommend("--history", ",".join(same), "-k", "30"))

    taste = next(each for each in content["tastes"] if each["key"] == "colour")
    assert (taste["value"], taste["count"], taste["listings"]) == (colour, 4, 4)
    assert taste["share_of_catalog"] == pytest.approx(colours[colour] / len(rows), abs=1e-4)
    by_id = {row["id"]: row for row in rows}
    said = [colour in " ".join(each["tastes"]) for each in content["products"]]
    assert any(said)
    for each, has in zip(content["products"], said, strict=True):
        assert len(each["tastes"]) <= 3
        assert not has or by_id[each["id"]]["attr_colour"] == colour
    shown = call(*recommend("--history", ",".join(same)))
    assert "mostly" in shown.stdout and f"{colour} (4" in shown.stdout


def test_a_history_is_named_by_ids_in_any_case_and_says_what_is_unknown(recommend: Recommend) -> None:
    result = call(*recommend("--history", "L00001, l00002", "--history", "P00000-0,nonsense"))

    assert result.exit_code == 0, result.output
    assert "the catalog does not know P00000-0, nonsense" in result.stderr
    first, second = (line.split()[0] for line in result.stdout.splitlines()[1:3])
    assert (first, second) == ("L00002", "L00001"), "the latest first"


def test_a_history_of_nothing_known_is_an_error(recommend: Recommend) -> None:
    result = call(*recommend("--history", "nonsense,L99999"))

    assert result.exit_code == 3
    assert "the catalog knows none of nonsense, L99999" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--customer", "C1", "--history", "L00001"),
        ("--history", " , "),
        ("--customer", ""),
        ("--customer", "guest"),
    ],
)
def test_what_says_nothing_is_refused(recommend: Recommend, words: tuple[str, ...]) -> None:
    result = call(*recommend(*words))

    assert result.exit_code == 2, result.output


def test_the_first_call_reads_the_interactions_itself(shop: Path) -> None:
    shutil.rmtree(shop / ".afmrl" / "recommend")
    words = ("recommend", "--catalog", str(shop), "--customer", customer_of(shop, 12))

    first, second = document(*words), document(*words)

    assert first == second and first["history"]["interactions"] > 5


def test_one_interaction_is_enough(shop: Path) -> None:
    rows = table(shop / "interactions.csv")
    write(shop / "interactions.csv", [*rows, {**rows[-1], "customer": "newcomer", "quantity": "1", "event": "view"}])

    content = document("recommend", "--catalog", str(shop), "--customer", "newcomer", "-k", "3")

    assert content["history"]["interactions"] == 1
    assert len(content["products"]) == 3


def test_who_was_forgotten_is_not_recommended_for(shop: Path) -> None:
    name = customer_of(shop, 12)
    assert call("interactions", str(shop), "--forget", name).exit_code == 0

    result = call("recommend", "--catalog", str(shop), "--customer", name)

    assert result.exit_code == 3
    assert "was forgotten" in result.stderr and name not in result.stderr


def test_without_vectors_the_other_sources_speak(shop: Path) -> None:
    for folder in (shop / ".afmrl" / "embeddings").iterdir():
        (folder / "current").unlink(missing_ok=True)

    result = call("recommend", "--catalog", str(shop), "--customer", customer_of(shop, 12), "--json")

    content = json.loads(result.stdout)
    assert result.stderr.count("warning") == 1 and "afmrl embed" in result.stderr
    assert "history" not in content["weights"] and len(content["products"]) == 10


def test_without_interactions_a_history_is_followed_by_likeness(shop: Path) -> None:
    (shop / "interactions.csv").unlink()

    result = call("recommend", "--catalog", str(shop), "--history", "L00001,L00002", "--json")

    content = json.loads(result.stdout)
    assert "there are no interactions" in result.stderr
    assert content["weights_fitted_on"] == 0
    assert {each["source"] for each in content["products"]} <= {"history", "last item"}
    assert not {"L00001", "L00002"} & {each["id"] for each in content["products"]}, (
        "nothing says that repeats are wanted"
    )
    of_customer = call("recommend", "--catalog", str(shop), "--customer", "C00001")
    assert of_customer.exit_code == 3 and "no interactions" in of_customer.stderr


def test_without_interactions_and_vectors_there_is_nothing_to_rank_by(shop: Path) -> None:
    (shop / "interactions.csv").unlink()
    for folder in (shop / ".afmrl" / "embeddings").iterdir():
        (folder / "current").unlink(missing_ok=True)

    result = call("recommend", "--catalog", str(shop), "--history", "L00001")

    assert result.exit_code == 4 and "afmrl embed" in result.stderr


def test_products_that_left_the_catalog_are_not_shown(shop: Path) -> None:
    name = customer_of(shop, 12)
    words = ("recommend", "--catalog", str(shop), "--customer", name)
    before = document(*words)
    gone = {before["products"][0]["id"], before["products"][1]["id"], before["history"]["listings"][0]["id"]}
    write(shop / "catalog.csv", [row for row in table(shop / "catalog.csv") if row["id"] not in gone])

    after = document(*words)

    left = {each["id"] for each in [*after["products"], *after["history"]["listings"]]}
    assert not left & gone
    assert len(after["products"]) == 10


def test_a_listing_that_is_new_since_embed_is_told_and_harmless(shop: Path) -> None:
    rows = table(shop / "catalog.csv")
    write(shop / "catalog.csv", [*rows, {**rows[0], "id": "NEW", "product_id": "PNEW", "group_id": "GNEW"}])

    result = call("recommend", "--catalog", str(shop), "--history", "NEW,L00001")

    assert result.exit_code == 0, result.output
    assert f"1 of {len(rows) + 1} listings have no vector" in result.stderr


def test_of_a_style_one_variant_is_recommended(embedded_shop: Path, recommend: Recommend) -> None:
    groups = {row["id"]: row["group_id"] for row in table(embedded_shop / "catalog.csv")}

    content = document(*recommend("--history", "L00001", "-k", "1000"))

    shown = [groups[each["id"]] for each in content["products"]]
    assert len(shown) == len(set(shown)) == len(set(groups.values()))
    assert sum(each["variants"] for each in content["products"]) == len(groups) - len(shown) > 0


def test_the_page_shows_photos_and_reasons_and_needs_no_network(recommend: Recommend, tmp_path: Path) -> None:
    file = tmp_path / "next.html"
    result = call(*recommend("--history", "L00001,L00002,L00003", "-k", "4", "--html", str(file)))

    page = file.read_text("utf-8")
    assert result.exit_code == 0 and f"page: {file}" in result.stdout
    assert page.count('class="card"') == 4
    assert page.count("data:image/jpeg") >= 3
    assert "http" not in page.split("</style>")[1]
    assert call(*recommend("--history", "L00001", "--html", str(tmp_path / "next.txt"))).exit_code == 2


def test_titles_of_the_catalog_are_text_on_the_page(shop: Path, tmp_path: Path) -> None:
    rows = table(shop / "catalog.csv")
    for row in rows:
        row["title"] = 'Sizes 2 < 3 & "more" ' + row["title"]
    write(shop / "catalog.csv", rows)
    file = tmp_path / "next.html"

    assert call("recommend", "--catalog", str(shop), "--history", "L00001", "--html", str(file)).exit_code == 0

    page = file.read_text("utf-8")
    assert "2 &lt; 3 &amp; &#34;more&#34;" in page and "2 < 3" not in page


def test_weights_are_stored_and_made_again_when_damaged(shop: Path) -> None:
    words = ("recommend", "--catalog", str(shop), "--history", "L00001")
    first = document(*words)
    file = recommend_folder(CatalogFolder(shop / "catalog.csv")) / "weights.json"
    content = json.loads(file.read_text("utf-8"))
    for damaged in ("{", json.dumps({**content, "weights": {name: 9.0 for name in content["weights"]}}), "[]"):
        file.write_text(damaged, "utf-8")
        assert document(*words) == first
        assert json.loads(file.read_text("utf-8")) == content


def test_reading_goes_on_while_another_command_writes(shop: Path) -> None:
    words = ("recommend", "--catalog", str(shop), "--history", "L00001")
    first = document(*words)

    with writer_lock(shop / ".afmrl", "afmrl train-agcl"):
        assert document(*words) == first
        (shop / "interactions.csv").write_text("customer,item,time\nx,L00001,2024-01-01\n", "utf-8")
        refused = call(*words)
    assert refused.exit_code == 3 and "afmrl train-agcl" in refused.stderr
