"""`afmrl eval` with real adapters of the built-in model: trained with AGCL and plain InfoNCE, beside each other and the
base, over seeds, and BM25 over attributes that the built-in generator wrote.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.catalog.product import Product
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.cli.app import app
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.settings import SplitSettings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from tests.models.adapters import add_random
from tests.retrieval.shop import shop_rows, write_shop

SETTINGS = """
[model]
device = "cpu"
precision = "fp32"
[eval]
resamples = 200
[agcl]
attributes = "given"
batch_size = 4
steps = 2
learning_rate = 0.01
[split]
validation = 0.3
"""


def afmrl(*words: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == code, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with attributes; adapters of nano (agcl-0, agcl-1: two seeds; plain: InfoNCE), and vectors of each."""
    root = tmp_path_factory.mktemp("shop")
    write_shop(root, shop_rows(24))
    (root / "afmrl.toml").write_text(SETTINGS)
    afmrl("attributes", str(root))
    for name, words in {"agcl-0": [], "agcl-1": ["--seed", "1"], "plain": ["--loss", "infonce"]}.items():
        assert afmrl("train-agcl", str(root), "--name", name, *words)["checkpoint"] == name
        afmrl("embed", str(root), "--set", f"model.embedder_checkpoint={name}")
    afmrl("embed", str(root))
    return root


@pytest.fixture
def shop(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shop"
    shutil.copytree(trained, root)
    monkeypatch.chdir(root)
    return root


def with_checkpoint(name: str, *words: str, code: int = 0) -> dict[str, Any]:
    """Asked about everything, as the bare base is: the models are compared, not judged."""
    return afmrl("eval", "--set", f"model.embedder_checkpoint={name}", "--split", "all", *words, code=code)


def by_default(*words: str) -> Result:
    result = CliRunner().invoke(app, ["eval", *words, "--set=model.embedder_checkpoint=agcl-0"])
    assert result.exit_code == 0, result.output
    return result


def test_by_default_queries_are_about_what_a_checkpoint_never_saw(shop: Path) -> None:
    test = with_checkpoint("agcl-0", "--split", "test")
    result = by_default("--json")
    content = json.loads(result.stdout)
    assert content["split"] == "unseen" and content["seen"]["queries_seen"] == 0 < content["queries"] < 24
    assert content["queries"] == test["queries"] and ranking(content, "embedder") == ranking(test, "embedder")
    said = f"{content['queries']} of 24 queries are used: those about products that agcl-0 never saw in training"
    assert said in " ".join(result.stderr.split())
    assert "about products unseen in training" in " ".join(by_default().stdout.split())
    every = with_checkpoint("agcl-0")
    assert (every["split"], every["queries"], every["seen"]["queries_seen"]) == ("all", 24, 24 - content["queries"])
    assert [note for note in every["notes"] if note.startswith(f"{24 - content['queries']} of 24 queries are about")]


def test_a_product_that_was_listed_later_has_queries(shop: Path) -> None:
    before = json.loads(by_default("--json").stdout)["queries"]
    rows = (shop / "catalog.csv").read_text().splitlines()
    split = SplitSettings(validation=0.3)
    new = next(f"q{i}" for i in range(99) if split_of(Product("n", product_id=f"q{i}"), split) == "train")
    rows += [f"new{i},{new}," + rows[i].split(",", 2)[2] for i in (-1, -2)]
    (shop / "catalog.csv").write_text("\n".join(rows) + "\n")
    afmrl("embed", "--set", "model.embedder_checkpoint=agcl-0")
    assert json.loads(by_default("--json").stdout)["queries"] == before + 2
    # Another split changes nothing: what was trained on stays that.
    assert json.loads(by_default("--json", "--set", "split.salt=other").stdout)["queries"] == before + 2


def test_a_checkpoint_whose_training_products_are_unknown_says_so(shop: Path) -> None:
    file = next((shop / ".afmrl").rglob("agcl-0/manifest.json"))
    manifest = json.loads(file.read_text())
    assert manifest.pop("products")["train"]
    file.write_text(json.dumps(manifest))
    result = by_default("--json")
    content = json.loads(result.stdout)
    assert (content["split"], content["queries"], content["seen"]["unknown"]) == ("all", 24, ["agcl-0"])
    assert "the training products of agcl-0 are not known" in " ".join(result.stderr.split())
    file.write_text(json.dumps({**manifest, "products": {"train": "AAA=", "validation": "", "listings": [1, 0]}}))
    damaged = CliRunner().invoke(app, ["eval", "--set=model.embedder_checkpoint=agcl-0"])
    assert damaged.exit_code == 4 and "not a manifest of this afmrl" in damaged.stderr


def test_what_a_checkpoint_has_seen_travels_and_shows_no_id(shop: Path) -> None:
    before = json.loads(by_default("--json").stdout)
    afmrl("checkpoints", "export", "agcl-0", "parcel", "--to", "afmrl")
    assert not [id for id in ("s1", "s11") if f'"{id}"' in (shop / "parcel" / "manifest.json").read_text()]
    shutil.rmtree(next((shop / ".afmrl").rglob("agcl-0/manifest.json")).parent)
    assert afmrl("checkpoints", "import", "parcel")["checkpoint"] == "agcl-0"
    afmrl("embed", "--set", "model.embedder_checkpoint=agcl-0")
    after = json.loads(by_default("--json").stdout)
    assert (after["split"], after["queries"]) == ("unseen", before["queries"])
    shown = afmrl("checkpoints", "show", "agcl-0")["products"]
    assert shown["complete"] and shown["train_listings"] + shown["validation_listings"] == 24 - before["queries"]


def row(content: dict[str, Any], system: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in content["systems"] if each["system"] == system)
    return found


def ranking(content: dict[str, Any], system: str) -> list[str]:
    return (Path(content["folder"]) / f"run-{system}.trec").read_text().splitlines()


def scores(lines: list[str]) -> dict[tuple[str, str], float]:
    return {(query, product): float(score) for query, _, product, _, score, _ in map(str.split, lines)}


def test_base_and_checkpoints_are_rows_of_the_same_table(shop: Path) -> None:
    content = with_checkpoint("agcl-0", "--baselines", "--systems", "checkpoint:plain")
    names = [system["system"] for system in content["systems"]]
    assert names == ["embedder", "checkpoint-plain", "bm25", "bm25-attributes", "colors", "fusion", "hybrid", "base"]
    assert "agcl-0" in content["embedder"] and "plain" in row(content, "checkpoint-plain")["id"]
    # Each row is what that model says when it is the embedder itself: figures, intervals and ranking.
    for system, alone in {"checkpoint-plain": with_checkpoint("plain"), "base": afmrl("eval")}.items():
        assert row(content, system)["id"] == alone["embedder"]
        assert row(content, system)["metrics"] == pytest.approx(row(alone, "embedder")["metrics"])
        ours, theirs = scores(ranking(content, system)), scores(ranking(alone, "embedder"))
        assert ours.keys() == theirs.keys()
        assert np.allclose([ours[pair] for pair in theirs], list(theirs.values()), atol=2e-5)
    # And they are three models, not one under three names.
    said = [scores(ranking(content, name)) for name in ("embedder", "checkpoint-plain", "base")]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert max(abs(said[a][pair] - said[b].get(pair, 0)) for pair in said[a]) > 1e-3


def test_a_checkpoint_that_is_the_embedder_is_reported(shop: Path) -> None:
    content = with_checkpoint("agcl-0", "--systems", "checkpoint:agcl-0")
    assert "checkpoint-agcl-0 is the embedder itself: its row says nothing new" in content["notes"]
    assert {each["verdict"] for each in content["comparisons"][0]["differences"]} == {"equal"}


def test_two_checkpoints_compared_through_their_runs(shop: Path) -> None:
    first = with_checkpoint("agcl-0")
    name = Path(first["folder"]).name
    again = with_checkpoint("agcl-0", "--compare", name, "--max-drop", "recall@1=0")
    assert {each["verdict"] for each in again["comparisons"][0]["differences"]} == {"equal"}
    content = with_checkpoint("plain", "--compare", name, "--systems", "checkpoint:agcl-0")
    by_run, by_row = content["comparisons"]
    assert (by_run["against"], by_run["given"]) == (name, True)
    assert (by_row["against"], by_row["given"]) == ("checkpoint-agcl-0", False)
    for run, beside in zip(by_run["differences"], by_row["differences"], strict=True):
        assert run["other"] == pytest.approx(beside["other"])
        assert run["other"] == pytest.approx(first["systems"][0]["metrics"][run["metric"]])
        assert run["value"] == pytest.approx(content["systems"][0]["metrics"][run["metric"]])
        assert run["verdict"] == beside["verdict"] and run["p"] == pytest.approx(beside["p"])


def test_a_worse_checkpoint_fails_the_gate(shop: Path) -> None:
    """Of the base and an adapter of random numbers, the worse one does not pass against the better one."""
    base = resolve_base(load_settings(shop).model, "embedder")
    add_random(Checkpoints(CatalogFolder(shop / "catalog.csv").checkpoints), base, "scrambled", seed=0)
    afmrl("embed", "--set", "model.embedder_checkpoint=scrambled")
    found = {name: with_checkpoint(name) for name in ("", "scrambled")}
    worse, better = sorted(found, key=lambda name: found[name]["systems"][0]["metrics"]["mrr"])
    gate = ["--compare", Path(found[better]["folder"]).name, "--max-drop", "mrr=0"]
    content = with_checkpoint(worse, *gate, code=1)
    [check] = content["checks"]
    [difference] = [d for d in content["comparisons"][0]["differences"] if d["metric"] == "mrr"]
    assert check["passed"] is False and check["value"] == difference["difference"] < 0
    assert ("this drop may be luck" in check["message"]) == (difference["verdict"] != "worse")
    assert with_checkpoint(better, *gate)["checks"][0]["passed"] is True


def test_seeds_of_one_training_merged_against_the_base(shop: Path) -> None:
    one, other, base = with_checkpoint("agcl-0"), with_checkpoint("agcl-1"), afmrl("eval")
    names = [Path(each["folder"]).name for each in (one, other, base)]
    content = with_checkpoint("agcl-0", "--merge", names[1], "--compare", names[2])
    ours = content["systems"][0]
    assert ours["runs"] == 2
    for metric, value in ours["metrics"].items():
        both = [each["systems"][0]["metrics"][metric] for each in (one, other)]
        assert value == pytest.approx(np.mean(both))
        assert ours["spread"][metric] == pytest.approx(np.std(both, ddof=1))
    assert max(ours["spread"].values()) > 0  # two seeds are two models
    difference = content["comparisons"][0]["differences"][0]
    assert difference["value"] == pytest.approx(ours["metrics"][difference["metric"]])
    assert difference["other"] == pytest.approx(base["systems"][0]["metrics"][difference["metric"]])


def test_bm25_over_generated_attributes(shop: Path) -> None:
    afmrl("attributes", "--out", "out.jsonl", "--set", "catalog.path=catalog.csv")
    content = afmrl("eval", "--systems", "bm25-attributes", "--set", "catalog.path=catalog.csv")
    found = row(content, "bm25-attributes")
    assert found["readable"] == 24
    # By hand: the listings that share no attribute value with a query are not in its ranking.
    from afmrl_cli.retrieval.bm25 import tokenize

    words: dict[str, set[str]] = {}
    for line in map(json.loads, Path("out.jsonl").read_text().splitlines()):
        values = [pair.partition(": ")[2] for pair in line["attributes"].split("; ")]
        words[line["id"]] = {word for value in values for word in tokenize(value)}
    ranked: dict[str, set[str]] = {}
    for line in ranking(content, "bm25-attributes"):
        query, _, product, *_ = line.split()
        ranked.setdefault(query, set()).add(product)
    for query, own in words.items():
        assert ranked.get(query, set()) == {id for id in words if id != query and words[id] & own}
    assert found["metrics"]["recall@10"] > 0.5  # photos of one colour get the same colour word
