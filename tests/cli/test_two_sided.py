"""A two-sided embedder in `embed`, `search`, `eval` and `checkpoints`: composed queries are read by its query adapter,
all else as by its gallery adapter alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.retrieval.composed import compose, read_change
from afmrl_cli.retrieval.vectors import load_vectors
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.run import AGCL
from afmrl_cli.training.shell import start_job
from afmrl_cli.workspace import Workspace
from tests.models.adapters import add_random, add_two_sided
from tests.retrieval.shop import shop_rows, write_shop

from .calls import call, document


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """A shop with the checkpoint `two` in its settings, `gallery` and `query`, which are one of its sides each; vectors
    of `two` and `gallery`.
    """
    root = tmp_path_factory.mktemp("shop")
    folder, model = write_shop(root, shop_rows(16)), tiny_model("qwen2_vl")
    both = f'embedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\nmax_pixels = 3136\n'
    (root / "afmrl.toml").write_text(f'[model]\n{both}embedder_checkpoint = "two"\n[eval]\nresamples = 200\n')
    base = resolve_base(load_settings(root).model, "embedder")
    store = Checkpoints(folder.checkpoints)
    add_two_sided(store, base, "two", (1, 2))
    for seed, name in ((1, "gallery"), (2, "query")):
        add_random(store, base, name, seed)
    for name in ("two", "gallery"):
        assert call("embed", str(root), *by(name)).exit_code == 0
    return root


def by(name: str) -> list[str]:
    return ["--set", f"model.embedder_checkpoint={name}"]


def work_of(name: str, listener: Any = None) -> Workspace:
    settings = load_settings(Path.cwd(), {"model.embedder_checkpoint": name})
    return Workspace(CatalogFolder(Path("catalog.csv").absolute()), settings, listener or Silent())


def scores_of(content: dict[str, Any]) -> dict[str, float]:
    return {hit["id"]: hit["score"] for hit in content["hits"]}


def test_listings_and_plain_queries_are_read_by_the_gallery_adapter(shop: Path) -> None:
    two, gallery = work_of("two"), work_of("gallery")
    assert np.array_equal(load_vectors(two).matrix, load_vectors(gallery).matrix)
    for words in (["green shirt"], ["--image", "images/4.png"], ["green", "--image", "images/4.png"], ["--like", "s3"]):
        found = [scores_of(document("search", *words, "-k", "16", *by(name))) for name in ("two", "gallery")]
        assert found[0] == found[1]


@pytest.mark.parametrize("dimensions", [0, 16])
def test_a_change_is_read_by_the_query_adapter(shop: Path, dimensions: int) -> None:
    cut = ["--set", f"embed.dimensions={dimensions}"]
    if dimensions:
        assert call("embed", *cut).exit_code == 0
    found = scores_of(document("search", "--like", "s0", "--change", "in green", "-k", "16", *cut))
    stored, query = load_vectors(work_of("gallery")), work_of("query")
    composed = compose(query, stored, read_change("in green"), like="s0")
    [vector] = query.embedder().encode([composed.query], instruction=query.embed.query_instruction)
    matrix, n = np.array(stored.matrix), dimensions or len(vector)
    lengths = np.linalg.norm(matrix[:, :n], axis=1) * np.linalg.norm(vector[:n])
    expected = dict(zip(stored.ids, matrix[:, :n] @ vector[:n] / lengths, strict=True))
    assert len(found) == 14 and all(score == pytest.approx(expected[id], abs=1e-5) for id, score in found.items())


def test_a_mixed_task_reads_each_query_by_its_side_whatever_the_cache_holds(shop: Path) -> None:
    same = {"text": "in green", "images": ["images/0.png"], "listing_id": "s0"}
    rows = [{"qid": "plain", **same}, {"qid": "wish", "type": "composed", **same}]
    Path("queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("qrels.trec").write_text("plain 0 s2 1\nwish 0 s2 1\n")
    stored = load_vectors(work_of("gallery"))
    for _ in range(2):  # encoded, then from the caches
        ask = ("eval", "--protocol", "queries", "--split", "all", "--run-out", "run.trec")
        assert document(*ask)["queries"] == 2
        lines = [line.split() for line in Path("run.trec").read_text().splitlines()]
        found = {(line[0], line[2]): float(line[4]) for line in lines}
        for qid, side in (("plain", "gallery"), ("wish", "query")):
            work = work_of(side)
            item = Item("in green", (Path("images/0.png").absolute(),))
            [vector] = work.embedder().encode([item], instruction=work.embed.query_instruction)
            expected = dict(zip(stored.ids, stored.matrix @ vector, strict=True))
            assert all(found[qid, id] == pytest.approx(expected[id], abs=2e-5) for id in stored.ids if id != "s0")


def test_only_whole_composed_queries_of_an_evaluation_go_to_the_query_adapter(shop: Path) -> None:
    words = []
    for i in range(0, 16, 2):
        words.append({"qid": f"q{i}", "text": "color: green", "images": [f"images/{i}.png"], "exclude": [f"s{i}"]})
    Path("q.jsonl").write_text("\n".join(map(json.dumps, words)))
    Path("q.trec").write_text("".join(f"q{i} 0 s{2 if i != 2 else 14} 1\n" for i in range(0, 16, 2)))
    runs: dict[str, dict[str, str]] = {}
    for name in ("two", "gallery"):
        ask = ("eval", "--protocol", "composed", "--queries", "q.jsonl", "--qrels", "q.trec", "--split", "all")
        content = document(*ask, "--baselines", *by(name))
        folder = Path(content["folder"])
        runs[name] = {file.stem: file.read_text() for file in folder.glob("run-*.trec")}
        assert content["composed"]["subsets"] == "neighbours"
    for alone in ("change-alone", "reference-alone", "attributes-alone"):
        assert runs["two"][f"run-{alone}"] == runs["gallery"][f"run-{alone}"] != ""
    assert runs["two"]["run-embedder"] != runs["gallery"]["run-embedder"]


def test_checkpoints_say_that_it_is_two_sided(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = document("checkpoints", "list")["checkpoints"]
    assert {row["name"]: row["two_sided"] for row in rows} == {"two": True, "gallery": False, "query": False}
    assert call("checkpoints", "list").stdout.count("two-sided") == 1
    assert document("checkpoints", "show", "two")["two_sided"] is True
    assert "two-sided: gallery, query (reads composed queries)" in call("checkpoints", "show", "two").stdout
    assert "two-sided" not in call("checkpoints", "show", "gallery").stdout
    differ = {
        row["what"]: (row["first"], row["second"])
        for row in document("checkpoints", "diff", "two", "gallery")["differences"]
    }
    assert differ["two_sided"] == (True, False) and "weights" not in differ
    exported = call("checkpoints", "export", "two", "out", "--to", "peft")
    assert "two-sided: query/ reads composed queries" in exported.stderr and Path("out/query").is_dir()


def test_training_goes_on_from_the_gallery_adapter_and_says_so(shop: Path) -> None:
    class Notes(Silent):
        def __init__(self) -> None:
            self.said: list[str] = []

        def note(self, message: str) -> None:
            self.said.append(message)

    listener = Notes()
    for name in ("two", "gallery"):
        start_job(AGCL, work_of(name, listener))
    assert listener.said == ["training goes on from the gallery adapter of two; its query adapter is not taken on"]


def test_a_damaged_second_file_ends_a_search_with_one_message(shop: Path) -> None:
    file = shop / ".afmrl/checkpoints/two/query_adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    result = call("search", "--like", "s0", "--change", "in green")
    assert result.exit_code == 4 and "query_adapter.safetensors: damaged" in " ".join(result.stderr.split())
