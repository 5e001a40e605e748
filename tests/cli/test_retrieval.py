"""embed, search and eval as a person types them, with a tiny real model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import afmrl_cli
from afmrl_cli.cli.app import app
from tests.chat_server import Reply, chat_server
from tests.retrieval.shop import shop_rows, write_shop

from .calls import call, document


def toml(model: Path) -> str:
    return f'[model]\nembedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\nmax_pixels = 3136\n'


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    root = tmp_path_factory.mktemp("shop")
    write_shop(root, shop_rows(24))
    (root / "afmrl.toml").write_text(toml(tiny_model("qwen2_vl")))
    result = CliRunner().invoke(app, ["embed", str(root)])
    assert result.exit_code == 0, result.output
    return root


def write_queries(root: Path) -> None:
    lines = [
        {"qid": "t1", "type": "text", "text": "green shirt"},
        {"qid": "p1", "type": "photo", "images": ["images/4.png"], "listing_id": "s4"},
        {"qid": "n1", "text": "nothing like it"},
    ]
    (root / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "qrels.trec").write_text("t1 0 s2 1\nt1 0 s3 2\np1 0 s4 1\np1 0 s5 1\nn1 0 s1 0\n")


def test_embed_again_does_nothing(shop: Path) -> None:
    content = document("embed")
    assert content["schema"] == "afmrl.embed/1"
    assert (content["products"], content["encoded"], content["changed"]) == (24, 0, False)
    assert "nothing changed" in call("embed").output


def test_search_by_text(shop: Path) -> None:
    content = document("search", "red shirt", "-k", "3", "--filter", "brand=luma")
    assert content["schema"] == "afmrl.search/1"
    assert [hit["rank"] for hit in content["hits"]] == [1, 2, 3]
    assert all(hit["id"] in {f"s{i}" for i in range(6)} for hit in content["hits"])
    assert "words in common" in call("search", "red shirt", "--wide").output


def test_search_by_photo_like_and_page(shop: Path) -> None:
    assert document("search", "--image", "images/0.png", "-k", "1")["hits"]
    content = document("search", "--like", "s0", "-k", "50", "--html", "out.html")
    assert len(content["hits"]) == 23
    assert (shop / "out.html").read_text("utf-8").count("data:image/jpeg") == 24  # the liked one, too


def test_like_pays_for_nothing_that_it_does_not_need(shop: Path) -> None:
    """Each of these takes longer to import than the search over 100,000 listings takes."""
    script = (
        "import sys; from afmrl_cli.cli.app import app\n"
        "app(['search', '--like', 's0', '--quiet'], standalone_mode=False)\n"
        "print('HEAVY', [name for name in ('torch', 'faiss', 'pandas', 'pyarrow.compute') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(afmrl_cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], cwd=shop, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert "s1" in done.stdout


def test_search_after_a_change_says_so(shop: Path) -> None:
    write_shop(shop, shop_rows(25))
    result = call("search", "--like", "s0")
    assert result.exit_code == 0
    assert "1 products are new, changed or gone" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["search"], 2, "nothing to search for"),
        (["search", "x", "--like", "s0"], 2, "--like stands alone"),
        (["search", "--like", "zzz"], 3, "no such listing"),
        (["search", "--like", "s0", "--filter", "brand"], 2, "key=value"),
        (["search", "--like", "s0", "-k", "0"], 2, "-k: must be 1 or more"),
        (["search", "--image", "catalog.csv"], 3, "catalog.csv"),
        (["search", "--like", "s0", "--set", "model.embedder_images=1"], 4, "the settings name"),
        (["eval", "--set", "embed.target_instruction=Other"], 4, "the settings name"),
        (["eval", "--protocol", "none"], 2, "no such protocol"),
        (["eval", "--protocol", "photo", "--queries", "q.jsonl"], 2, "takes no --queries"),
        (["eval", "--fail-under", "f1=0.5"], 2, "no such metric"),
        (["eval", "--fail-under", "recall@10=7"], 2, "between 0 and 1"),
        (["eval", "--fail-under", "recall@10=nan"], 2, "between 0 and 1"),
        (["eval", "--fail-under", "recall@10"], 2, "METRIC=X"),
        (["eval", "--gallery", "brand=none"], 3, "no listing passes"),
        (["eval", "--gallery", "brnd=x"], 2, "no column brnd"),
        (["eval", "--queries", "none.jsonl"], 3, "none.jsonl"),
        (["eval", "--ks", "0"], 2, "must be 1 or more"),
        (["embed", "--index", "best"], 2, "--index: must be"),
        (["search", "--image", "none.jpg"], 3, "none.jpg: no such file"),
        (["search", "--like", "s0", "--html", "catalog.csv"], 2, "must end in .html"),
        (["search", "--like", "s0", "--html", ".afmrl/a.html"], 2, "lies inside .afmrl"),
        (["search", "--like", "s0", "--html", "images"], 2, "must end in .html"),
        (["eval", "--run-out", "catalog.csv"], 2, "retailer's own file"),
        (["eval", "--run-out", "images/../qrels.trec"], 2, "retailer's own file"),
        (["eval", "--markdown", "catalog.csv"], 2, "retailer's own file"),
    ],
)
def test_what_cannot_be_done(shop: Path, words: list[str], code: int, message: str) -> None:
    before = (shop / "catalog.csv").read_bytes()
    result = call(*words)
    assert result.exit_code == code, result.output
    assert (shop / "catalog.csv").read_bytes() == before
    assert message in " ".join(result.stderr.split())


def test_eval_identity_is_the_default_and_is_kept(shop: Path) -> None:
    content = document("eval", "--baselines", "--fail-under", "recall@20=0", "--run-out", "run.trec")
    assert content["schema"] == "afmrl.eval/2"
    assert (content["protocol"], content["queries"], content["gallery"]) == ("identity", 24, 24)
    systems = {system["system"]: system for system in content["systems"]}
    assert systems["bm25"]["metrics"]["recall@1"] > 0
    assert systems["colors"]["metrics"]["recall@5"] > 0.5
    assert systems["embedder"]["readable"] == 24
    assert content["checks"][0]["passed"] is True
    lines = Path("run.trec").read_text().splitlines()
    assert len(lines) == 24 * 23
    assert all(line.split()[0] != line.split()[2] for line in lines)  # the query itself is taken out
    kept = Path(content["folder"])
    names = {path.name for path in kept.iterdir()}
    assert {"settings.json", "metrics.json", "per_query.jsonl", "qrels.trec", "run-embedder.trec"} <= names
    assert len((kept / "per_query.jsonl").read_text().splitlines()) == 24


def test_eval_photo_leaves_no_held_out_photo_in_the_gallery(shop: Path) -> None:
    # A copy of a held-out photo under another name and in another listing would give the answer away.
    rows = shop_rows(24)
    rows[1]["image"] += "|images/copy.png"
    shutil.copy(shop / "images/0b.png", shop / "images/copy.png")
    write_shop(shop, rows)
    content = document("eval", "--protocol", "photo", "--baselines")
    assert (content["queries"], content["gallery"]) == (9, 24)
    colors = next(system for system in content["systems"] if system["system"] == "colors")
    assert colors["readable"] == 9
    bm25 = next(system for system in content["systems"] if system["system"] == "bm25")
    assert bm25["readable"] == 0
    assert (
        "bm25: can't answer, it can't read these queries or this gallery"
        in call("eval", "--protocol", "photo", "--baselines").output
    )


def test_eval_queries(shop: Path) -> None:
    write_queries(shop)
    content = document("eval", "--protocol", "queries", "--baselines")
    assert content["queries"] == 2
    assert content["queries_without_relevant"] == ["n1"]
    # s4 is what p1 was made from: it can't be the answer, although it was judged.
    assert any("1 judgements of products outside the gallery or taken out" in note for note in content["notes"])
    bm25 = next(system for system in content["systems"] if system["system"] == "bm25")
    assert (bm25["readable"], bm25["metrics"]["hit@5"]) == (1, 0.5)
    only = document("eval", "--queries", "queries.jsonl", "--gallery", "id=s2", "--gallery", "id=s3")
    assert (only["gallery"], only["queries"]) == (2, 1)
    assert only["systems"][0]["metrics"]["recall@5"] == 1.0


def test_eval_judgements_of_another_catalog(shop: Path) -> None:
    write_queries(shop)
    (shop / "qrels.trec").write_text("t1 0 s2 1\nt1 0 elsewhere 1\n")
    result = call("eval", "--protocol", "queries")
    assert result.exit_code == 3
    assert "qrels.trec:2: unknown product elsewhere" in " ".join(result.stderr.split())


def test_eval_image_outside_the_queries_folder(shop: Path) -> None:
    write_queries(shop)
    (shop / "queries.jsonl").write_text('{"qid": "t1", "images": ["../secret.png"]}')
    (shop / "qrels.trec").write_text("t1 0 s2 1\n")
    result = call("eval", "--protocol", "queries")
    assert result.exit_code == 3
    assert "queries.jsonl:1: image ../secret.png" in " ".join(result.stderr.split())


def test_eval_without_a_relevant_product(shop: Path) -> None:
    write_queries(shop)
    (shop / "qrels.trec").write_text("n1 0 s1 0\n")
    result = call("eval", "--protocol", "queries")
    assert result.exit_code == 3
    assert "no query has a relevant product" in result.stderr


def test_eval_threshold_missed(shop: Path) -> None:
    result = call("eval", "--fail-under", "precision@10=0.9", "--fail-under", "recall@10=0")
    assert result.exit_code == 1
    assert "precision@10 is" in result.stderr
    assert "recall@10 is" not in result.stderr
    content = document("eval", "--fail-under", "precision@10=0.9", code=1)
    assert content["schema"] == "afmrl.eval/2"
    assert content["checks"][0]["passed"] is False


def test_eval_sees_the_catalog_as_it_is_now(shop: Path) -> None:
    before = document("eval")
    rows = shop_rows(24)
    for row in rows[:6]:
        row["title"] += " changed"
    write_shop(shop, rows)
    after = document("eval", "--max-queries", "5")
    assert after["gallery"] == before["gallery"]
    assert after["queries"] == 5
    assert any("a sample of 5 of 24 queries" in note for note in after["notes"])


def test_nothing_to_evaluate_by(shop: Path) -> None:
    rows = shop_rows(4)
    for row in rows:
        row["product_id"], row["image"], row["title"] = "", row["image"].split("|")[0], ""
    write_shop(shop, rows)
    result = call("eval")
    assert result.exit_code == 3
    assert "nothing to evaluate by" in result.stderr


def test_search_before_embed(tmp_path: Path, tiny_model: Callable[[str], Path]) -> None:
    write_shop(tmp_path / "new", shop_rows(2))
    (tmp_path / "new/afmrl.toml").write_text(toml(tiny_model("qwen2_vl")))
    result = call("search", "x", "--catalog", str(tmp_path / "new"))
    assert result.exit_code == 4
    assert "no vectors yet" in result.stderr


def test_enrich_writes_attributes_for_the_query(shop: Path) -> None:
    # A random model writes nonsense, which is reported and not used; the search goes on.
    result = call("search", "red shirt", "--enrich", "-k", "1", "--set", "attributes.max_new_tokens=8")
    assert result.exit_code == 0, result.output
    assert "the generator's answer is not used" in " ".join(result.stderr.split())


def test_enrich_shows_the_generator_the_query_and_nothing_else(shop: Path) -> None:
    with chat_server() as server:
        server.script = lambda number, body: Reply(text="color: red")
        content = document(
            *("search", "a red one", "--enrich", "--image", "images/4.png", "--image", "images/5.png", "-k", "1"),
            *("--set", f"attributes.endpoint={server.url}", "--set", "attributes.endpoint_model=m"),
            *("--set", "model.generator_images=1"),
        )
        [request] = server.requests
    said = json.dumps(request)
    assert content["question"]["attributes"] == "color: red"
    assert "Title: a red one" in said and said.count("data:image/jpeg") == 1
    assert not any(row["title"] in said for row in shop_rows(24))


def test_search_warns_of_the_built_in_model_for_what_it_runs(shop: Path) -> None:
    built_in = ("--set", "model.generator=nano", "--set", "attributes.max_new_tokens=8")
    warning = "the built-in model (nano) has only seen drawn clothes"
    assert warning not in " ".join(call("search", "red shirt", *built_in).stderr.split())
    assert warning in " ".join(call("search", "red shirt", "--enrich", *built_in).stderr.split())


@pytest.mark.parametrize(
    ("protocol", "more", "command"),
    [
        ("photo", (), "queries:photo"),
        ("text", (), "queries:text"),
        ("coarse", ("--max-queries", "5"), "queries:coarse --set eval.max_queries=5"),
        ("queries", (), "queries"),
        ("identity", ("--query-fields", "title"), "queries:identity --set eval.query_fields=title"),
    ],
)
def test_the_hint_to_describe_queries_is_true(shop: Path, protocol: str, more: tuple[str, ...], command: str) -> None:
    write_queries(shop)
    (shop / "qrels.trec").write_text("t1 0 s2 1\np1 0 s5 1\n")
    notes = document("eval", "--protocol", protocol, *more)["notes"]
    assert any(note.endswith(f"run `afmrl attributes --views listing,{command}`") for note in notes), notes
    words = f"attributes --dry-run --views listing,{command}".split()
    described = document(*words)
    assert described["views"] > described["products"] == 24


def test_texts_that_are_cut_are_reported_once(shop: Path) -> None:
    few = ("--set", "model.max_text_tokens=16")
    long = "a blue denim jacket, regular fit, with a zip and two pockets, " * 3
    said = call("embed", *few).stderr
    assert said.count("longer than model.max_text_tokens: the end of the product text was cut off") == 1
    assert "24 texts are longer" in said
    assert "the query: 1 text is longer" in call("search", long, *few).stderr
    assert "longer than" not in call("search", "red", *few).stderr
    lines = [{"qid": "long", "text": long}, {"qid": "short", "text": "red"}]
    (shop / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (shop / "qrels.trec").write_text("long 0 s2 1\nshort 0 s1 1\n")
    assert call("eval", "--queries", "queries.jsonl", *few).stderr.count("1 text is longer") == 1


def test_an_outside_run_is_found_in_the_catalogs_folder_too(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_queries(shop)
    (shop / "theirs.trec").write_text("t1 Q0 s2 1 0.5 x\n")
    monkeypatch.chdir(tmp_path)
    ask = ("eval", str(shop), "--queries", str(shop / "queries.jsonl"), "--systems")
    assert "run-theirs.trec" in json.dumps(document(*ask, "run:theirs.trec")["systems"])
    failed = call(*ask, "run:none.trec")
    assert failed.exit_code == 3
    assert f"looked for {tmp_path / 'none.trec'} and {shop / 'none.trec'}" in failed.output.replace("\n", "")


def test_results_fit_a_terminal_and_like_shows_what_it_is_like(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = call("search", "--like", "s0", "-k", "3").stdout.splitlines()
    assert shown[0].startswith("like s0  ")
    assert all(len(line) <= 80 for line in shown)
    content = document("search", "--like", "s0", "-k", "3")
    assert content["question"]["liked"]["id"] == "s0"
    assert {"brand", "price", "link"} <= content["hits"][0].keys()
    assert "words in common" in call("search", "--like", "s0", "-k", "3", "--wide").stdout
