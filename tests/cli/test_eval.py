"""`afmrl eval` as a person and a CI type it: comparing, merging, gates, files for other programs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from tests.retrieval.shop import shop_rows, write_shop

from . import calls
from .calls import call


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    root = tmp_path_factory.mktemp("shop")
    write_shop(root, shop_rows(24))
    model = tiny_model("qwen2_vl")
    settings = f'embedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\nmax_pixels = 3136\n'
    (root / "afmrl.toml").write_text(f"[model]\n{settings}[eval]\nresamples = 200\n")
    result = CliRunner().invoke(app, ["embed", str(root)])
    assert result.exit_code == 0, result.output
    assert call("eval", str(root), "--baselines").exit_code == 0  # fills the caches
    shutil.rmtree(root / ".afmrl" / "runs")
    return root


def document(*words: str, code: int = 0) -> dict[str, Any]:
    content = calls.document("eval", *words, code=code)
    assert content["schema"] == "afmrl.eval/2"
    return content


def without_last(folder: Path, file: Path, drop: int) -> None:
    """A run that answers all but the last `drop` queries of the embedder's run in `folder`."""
    lines = (folder / "run-embedder.trec").read_text().splitlines(keepends=True)
    kept = sorted({line.split()[0] for line in lines})[: 24 - drop]
    file.write_text("".join(line for line in lines if line.split()[0] in kept))


def test_intervals_and_every_baseline_by_one_flag(shop: Path) -> None:
    content = document("--baselines")
    assert [system["system"] for system in content["systems"]] == ["embedder", "bm25", "colors", "fusion", "hybrid"]
    for system in content["systems"]:
        for name, value in system["metrics"].items():
            low, high = system["intervals"][name]
            assert low <= value + 1e-9 and value <= high + 1e-9
    assert content["groups"] == 12  # pairs ask for each other: half as much evidence as queries
    assert [comparison["against"] for comparison in content["comparisons"]] == ["bm25", "colors", "fusion", "hybrid"]
    [weight, *_] = content["systems"][3]["fusion"]
    assert (weight["weight"], weight["tuned_on"], weight["metric"]) == (0.5, 0, "ndcg@10")
    assert content["systems"][0]["fusion"] is None
    shown = call("eval", "--baselines").output
    assert "95% interval" in shown and "fusion: equal weights, since too few other products" in shown
    assert "(at most)" not in shown  # only precision@10, which is not shown, can't be 1


def test_the_same_run_shows_no_difference(shop: Path) -> None:
    first = Path(document()["folder"])
    for written in (str(first), first.name, str(first / "run-embedder.trec")):
        content = document("--compare", written, "--max-drop", "recall@10=0")
        [comparison] = content["comparisons"]
        assert {each["verdict"] for each in comparison["differences"]} == {"equal"}
        assert content["checks"][0]["passed"] is True
    assert f"recall@1: the same as {first.name} on every query" in call("eval", "--compare", first.name).output


def test_a_drop_fails_the_build_and_is_written_for_it(shop: Path) -> None:
    # The compared run found all; ours can't have, so the drop is real.
    qrels = (Path(document()["folder"]) / "qrels.trec").read_text().splitlines()
    Path("best.trec").write_text("".join(f"{q} Q0 {d} 1 1.0 best\n" for q, _, d, _ in map(str.split, qrels)))
    words = ["--compare", "best.trec", "--max-drop", "recall@1=0.01", "--fail-under", "mrr=0"]
    files = ["--junit", "out.xml", "--markdown", "out.md", "--html", "out.html", "--github"]
    result = call("eval", *words, *files)
    assert result.exit_code == 1, result.output
    assert "recall@1: worse than best.trec" in result.output
    assert "::error title=afmrl eval::recall@1 is" in result.stderr
    suite = ElementTree.parse("out.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [case.get("name") for case in suite] == ["fail_under mrr", "max_drop recall@1"]
    text = Path("out.md").read_text("utf-8")
    assert "**failed**: recall@1 is" in text
    assert "| embedder |" in text
    page = Path("out.html").read_text("utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/jpeg") > 10
    assert "<h1>Evaluation: identity</h1>" in page
    assert document(*words, code=1)["checks"][1]["passed"] is False


def test_a_difference_of_two_queries_is_not_called_one(shop: Path) -> None:
    without_last(Path(document()["folder"]), Path("less.trec"), 1)
    content = document("--compare", "less.trec")
    mrr = next(each for each in content["comparisons"][0]["differences"] if each["metric"] == "mrr")
    assert mrr["difference"] > 0
    assert mrr["verdict"] == "no difference shown"
    assert "mrr: no difference to less.trec shown" in mrr["words"]


def test_from_elsewhere_with_a_model_beside_the_catalog(
    shop: Path, tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model("qwen2_vl"), shop / "models" / "ours")
    models = 'embedder = "models/ours"\ngenerator = "models/ours"\n'
    (shop / "afmrl.toml").write_text(f'[model]\n{models}device = "cpu"\n[eval]\ncompare = "earlier.trec"\n')
    monkeypatch.chdir(tmp_path)
    assert call("embed", str(shop)).exit_code == 0
    (shop / "earlier.trec").write_text("s0 Q0 s1 1 1.0 x\n")
    content = document(str(shop))
    assert content["embedder"].startswith("ours-")
    assert content["comparisons"][0]["against"] == "earlier.trec"


def test_seeds_are_merged(shop: Path) -> None:
    first = document()
    folder = Path(first["folder"])
    without_last(folder, Path("less.trec"), 12)
    content = document("--merge", "less.trec", "--compare", folder.name, "--compare", "less.trec")
    ours = content["systems"][0]
    assert (ours["runs"], content["comparisons"][0]["runs"]) == (2, 2)
    assert ours["metrics"]["mrr"] < first["systems"][0]["metrics"]["mrr"]
    assert ours["spread"]["mrr"] > 0
    assert {each["verdict"] for each in content["comparisons"][0]["differences"]} == {"equal"}
    assert "embedder: mean of 2 runs, recall@1 ±" in " ".join(call("eval", "--merge", "less.trec").output.split())


def test_a_run_of_another_tool_and_classes(shop: Path) -> None:
    folder = Path(document()["folder"])
    shutil.copy(folder / "run-embedder.trec", "theirs.trec")
    content = document("--systems", "run:theirs.trec", "--systems", "bm25")
    assert [system["system"] for system in content["systems"]] == ["embedder", "run-theirs.trec", "bm25"]
    assert content["systems"][0]["metrics"] == content["systems"][1]["metrics"]
    coarse = document("--protocol", "coarse", "--systems", "colors", "--systems", "bm25")
    embedder, colors, bm25 = coarse["systems"]
    assert set(colors["classes"]["metrics"]) == {"knn_accuracy", "probe_accuracy", "nmi", "ari", "purity"}
    assert (embedder["classes"]["classes"], bm25["classes"]) == (2, None)


def test_fine_with_labels_from_a_file(shop: Path) -> None:
    lines = ["id,product_id,group_id", *(f"s{i},x{i // 2},g{i // 4}" for i in range(24))]
    Path("labels.csv").write_text("\n".join(lines))
    content = document("--protocol", "fine", "--labels", "labels.csv", "--slices", "all", "--systems", "colors")
    assert content["queries_with_variants"] == 24
    variants = content["systems"][1]["variants"]
    assert variants["above_variants"] == 1
    # Wilson's of 12 of 12 products, not [1, 1]
    assert variants["intervals"]["above_variants"] == [pytest.approx(0.7575, abs=1e-4), 1]
    own = content["systems"][0]["variants"]
    low, high = own["intervals"]["above_variants"]
    assert 0 <= low < own["above_variants"] < high <= 1
    assert set(content["slices"]) == {"category", "brand"}
    assert sum(row["queries"] for row in content["slices"]["brand"]) == 24
    assert call("eval", "--protocol", "fine").exit_code == 3


def test_beir_folder(tmp_path: Path, embedded: Path) -> None:
    root = tmp_path / "beir"
    (root / "qrels").mkdir(parents=True)
    shutil.copy(embedded / "afmrl.toml", root)
    corpus = [
        {"_id": f"d{i}", "title": f"{name} shirt", "text": "cotton", "metadata": {}}
        for i, name in enumerate(("red", "blue"))
    ]
    (root / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    queries = [{"_id": "1", "text": "red"}, {"_id": "2", "text": "of another split"}]
    (root / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\td0\t1\n")
    assert call("embed", str(root)).exit_code == 0
    content = document(str(root), "--systems", "bm25", "--ks", "1")
    assert (content["protocol"], content["queries"], content["gallery"]) == ("queries", 1, 2)
    assert content["systems"][1]["metrics"]["recall@1"] == 1.0
    assert "1 queries are not judged in test.tsv" in content["notes"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--compare", "none"], 3, "none: no such run"),
        (["--compare", "images"], 3, "not a finished evaluation"),
        (["--compare", "empty.trec"], 3, "an empty run"),
        (["--compare", "other.trec"], 3, "answers none of the queries"),
        (["--compare", "foreign.trec"], 3, "foreign.trec:1: unknown product zz"),
        (["--compare", "short.trec"], 3, "short.trec:1: 3 parts, not 6"),
        (["--compare", "nan.trec"], 3, "no finite number"),
        (["--compare", "twice.trec"], 3, "ranks s1 twice"),
        (["--systems", "run:none.trec"], 3, "none.trec"),
        (["--systems", "elsewhere"], 2, "no such system"),
        (["--systems", "clip"], 2, "no such system"),
        (["--systems", "clip:none"], 4, "none: no such folder"),
        (["--systems", "checkpoint:none"], 4, "none"),
        (["--systems", "bm25-attributes"], 3, "no listing has stored attributes"),
        (["--systems", "change-alone"], 2, "change-alone: identity asks no composed queries"),
        (["--max-drop", "mrr=0.1"], 2, "needs a run to compare with"),
        (["--max-drop", "mrr=2", "--compare", "x"], 2, "between 0 and 1"),
        (["--fail-under", "recall@50=0.5"], 2, "recall@50 over a gallery of 24"),
        (["--ks", "30,50"], 2, "every cut is above the gallery"),
        (["--labels", "none.csv"], 3, "none.csv"),
        (["--queries", "asked.jsonl"], 3, "asked.trec: no judgements beside asked.jsonl"),
        (["--queries", "none.jsonl"], 3, "none.jsonl: can't be read"),
        (["--protocol", "fine"], 3, "no listing has a group_id"),
        (["--protocol", "coarse", "--label", "size"], 2, "no listing has a size"),
        (["--label", "color"], 2, "--label is for coarse and composed"),
        (["--slices", "size"], 2, "no such label"),
        (["--query-fields", "sound"], 2, "--query-fields"),
        (["--html", "catalog.csv"], 2, "--html catalog.csv: is the retailer's own file"),
        (["--junit", "twice.trec", "--merge", "twice.trec"], 2, "--junit twice.trec"),
        (["--junit", "twice.trec", "--systems", "run:twice.trec"], 2, "--junit twice.trec"),
        (["--queries", "queries_x.jsonl", "--run-out", "qrels_x.trec"], 2, "--run-out qrels_x.trec: is the retailer's"),
        (["--set", "eval.depth=9"], 2, "only eval.depth = 9 products are ranked"),
        (["--junit", "x.out", "--html", "./x.out"], 2, "--html and --junit both write x.out"),
    ],
)
def test_bad_input(shop: Path, words: list[str], code: int, message: str) -> None:
    runs = {
        "empty": "",
        "other": "q9 Q0 s1 1 1.0 x\n",
        "foreign": "s0 Q0 zz 1 1.0 x\n",
        "short": "s0 s1 1\n",
        "nan": "s0 Q0 s1 1 nan x\n",
        "twice": "s0 Q0 s1 1 1.0 x\ns0 Q0 s1 2 0.9 x\n",
    }
    Path("asked.jsonl").write_text('{"qid": "q", "text": "red"}')
    Path("queries_x.jsonl").write_text('{"qid": "q", "text": "red"}')
    Path("qrels_x.trec").write_text("q 0 s1 1\n")
    for name, text in runs.items():
        Path(f"{name}.trec").write_text(text)
    result = call("eval", *words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())


def test_a_run_that_was_judged_otherwise(shop: Path) -> None:
    folder = Path(document("--max-queries", "5")["folder"])
    result = call("eval", "--compare", folder.name)
    assert result.exit_code == 3
    assert "not the same evaluation" in result.stderr


def test_a_run_of_another_tool_is_judged_as_ours(shop: Path) -> None:
    """What can't be the answer (here: who asks) and what stands below the depth count for nobody."""
    folder = Path(document()["folder"])
    lines = (folder / "run-embedder.trec").read_text().splitlines()
    own = [f"{query} Q0 {query} 0 9.0 other" for query in sorted({line.split()[0] for line in lines})]
    Path("other.trec").write_text("\n".join([*own, *lines]) + "\n")
    content = document("--systems", "run:other.trec", "--compare", "other.trec", "--set", "eval.depth=10")
    ours, theirs = (system["metrics"] for system in content["systems"])
    assert ours == theirs
    assert {each["verdict"] for each in content["comparisons"][0]["differences"]} == {"equal"}


def test_what_differs_from_the_compared_run_is_reported(shop: Path) -> None:
    folder = Path(document("--gallery-fields", "photos")["folder"])
    notes = document("--compare", folder.name)["notes"]
    assert f"{folder.name} was made with gallery_fields = photos (now all)" in notes


def test_bm25_has_no_metrics_where_the_gallery_shows_photos_only(shop: Path) -> None:
    content = document("--gallery-fields", "photos", "--baselines")
    readable = {system["system"]: system["readable"] for system in content["systems"]}
    assert readable == {"embedder": 24, "bm25": 0, "colors": 24, "fusion": 0, "hybrid": 24}


def test_a_system_that_cannot_answer_is_not_scored_and_not_compared(shop: Path) -> None:
    Path("labels.csv").write_text("\n".join(["id,group_id", *(f"s{i},g{i // 4}" for i in range(24))]))
    words = [
        "--protocol",
        "composed",
        "--labels",
        "labels.csv",
        "--baselines",
        "--markdown",
        "out.md",
        "--html",
        "o.html",
    ]
    content = document(*words)
    names = [system["system"] for system in content["systems"]]
    parts = ["change-alone", "reference-alone", "attributes-alone"]
    assert names == ["embedder", "bm25", "colors", "fusion", "hybrid", *parts]
    for system in content["systems"][1:4]:
        assert set(system["metrics"].values()) == set(system["intervals"].values()) == {None}
        assert system["composed"] is None
    assert [each["against"] for each in content["comparisons"]] == parts
    shown = call("eval", *words).output
    assert re.search(r"^ *bm25( +-){5}", shown, re.MULTILINE)
    assert "bm25: can't answer, it can't read these queries or this gallery; compared with nothing" in shown
    assert "| bm25 | - | - |" in Path("out.md").read_text("utf-8")
    assert "<td>bm25</td><td>-</td>" in Path("o.html").read_text("utf-8")


def test_recall_is_shown_with_the_most_that_is_possible(shop: Path) -> None:
    """Four listings a product: of three right answers one can be in the first place."""
    Path("labels.csv").write_text("\n".join(["id,product_id", *(f"s{i},q{i // 4}" for i in range(24))]))
    words = [
        "--labels",
        "labels.csv",
        "--fail-under",
        "recall@1=0.4",
        "--fail-under",
        "hit@1=0",
        "--markdown",
        "out.md",
    ]
    content = document(*words, code=1)
    assert content["possible"]["recall@1"] == pytest.approx(1 / 3)
    assert content["possible"]["hit@1"] == content["possible"]["recall@5"] == content["possible"]["mrr"] == 1
    assert content["possible"]["precision@10"] == pytest.approx(0.3)
    recall, hit = content["checks"]
    assert f"recall@1 is {recall['value']:.4f} of at most 0.3333, below 0.4" == recall["message"]
    assert hit["value"] >= recall["value"] and hit["passed"]
    shown = call("eval", *words).stdout
    assert re.search(r"^ *\(at most\) +0.3333 +1.0000", shown, re.MULTILINE)
    assert "| (at most) | 0.3333 | 1.0000 |" in Path("out.md").read_text("utf-8")
    assert "recall@1 0" in call("eval", "--labels", "labels.csv", "--github").stderr


def test_tables_fit_80_columns_with_whole_numbers(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    Path("labels.csv").write_text("\n".join(["id,group_id", *(f"s{i},g{i // 4}" for i in range(24))]))
    words = ["--protocol", "fine", "--labels", "labels.csv", "--baselines", "--slices", "category"]
    shown = call("eval", *words).stdout
    table = [
        line
        for line in shown.splitlines()
        if re.match(r" *(system|embedder|bm25|colors|fusion|category|women|men)", line)
    ]
    assert len(table) > 10 and max(map(len, table)) <= 80
    number, ends = r"[01]\.\d{4}", r"[01]\.\d{3} to [01]\.\d{3}"
    assert re.search(rf"^ *embedder +{number} +{ends} +{number} +{number} +{number} *$", shown, re.MULTILINE)
    assert "ndcg@10" not in shown
    wide = call("eval", "--wide", "--baselines").stdout
    assert re.search(rf"^ *fusion +{number} +{ends}( +{number}){{9}} *$", wide, re.MULTILINE)
    assert "ndcg@10" in wide and "precision@10" in wide


def test_a_cut_above_the_gallery_is_reported(shop: Path) -> None:
    assert any("recall@100, hit@100: above the gallery of 24" in note for note in document("--ks", "1,100")["notes"])
