"""`afmrl train-rerank`, and --rerank of search, eval and dedupe, as they are typed."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from tests.training.shop import write_shop


def toml(model: Path) -> str:
    return (
        f'[model]\nembedder = "{model}"\ngenerator = "{model}"\ndevice = "cpu"\n'
        "[split]\nvalidation = 0.25\ntest = 0.25\n"
        "[rerank]\nsteps = 2\nbatch_size = 4\nchunk_size = 4\nnegatives = 1\ncandidates = 3\nvalidate_every = 2\n"
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """A shop with vectors and reranker-1."""
    root = write_shop(tmp_path_factory.mktemp("trained") / "shop", 32, listings_each=2, photos=1)
    (root / "afmrl.toml").write_text(toml(tiny_model("qwen2_vl")))
    for command in ("embed", "train-rerank"):
        result = CliRunner().invoke(app, [command, str(root)])
        assert result.exit_code == 0, result.output
    assert "checkpoint reranker-1" in result.stdout and "fused, weight" in result.stdout
    assert "give another verdict in" in result.stdout
    return root


@pytest.fixture
def shop(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil, and the folder to stand in."""
    root = tmp_path / "shop"
    shutil.copytree(trained, root)
    monkeypatch.chdir(root)
    return root


CHOSEN = ["--set", "model.reranker_checkpoint=reranker-1"]


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def document(*words: str) -> dict[str, Any]:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


def test_a_dry_run_writes_nothing_and_the_second_run_has_nothing_to_do(shop: Path) -> None:
    before = sorted(shop.rglob("*"))
    planned = document("train-rerank", "--dry-run", "--seed", "7")
    assert planned["schema"] == "afmrl.train-rerank/1" and planned["plan"]["words"] == ["y", "n"]
    assert planned["estimate"]["step_seconds"] > 0 and sorted(shop.rglob("*")) == before
    again = document("train-rerank")
    assert again["already_done"] and again["checkpoint"] == "reranker-1" and again["metrics"]["weight"] >= 0


def test_search_puts_the_first_results_in_the_rerankers_order(shop: Path) -> None:
    query = ["search", "red v-neck shirt number 0", "-k", "6"]
    plain = document(*query)["hits"]
    assert all(hit["same"] is None for hit in plain) and document(*query)["reranked"] is None
    told = document(*query, "--rerank", "4", *CHOSEN)
    reranked, took = told["hits"], told["reranked"]
    assert took["pairs"] == 4 and took["seconds"] > 0 and took["position_bias"] > 0 and 0 <= took["flipped"] <= 1
    assert "products a second" in " ".join(call(*query, "--rerank", "4", *CHOSEN).stderr.split())
    assert [hit["rank"] for hit in reranked] == [1, 2, 3, 4, 5, 6]
    assert {hit["id"] for hit in reranked[:4]} == {hit["id"] for hit in plain[:4]}
    assert [hit["id"] for hit in reranked[4:]] == [hit["id"] for hit in plain[4:]]
    assert all(0 < hit["same"] < 1 for hit in reranked[:4]) and reranked[4]["same"] is None
    scores = {hit["id"]: hit["score"] for hit in plain}
    assert all(hit["score"] == scores[hit["id"]] for hit in reranked), "the score stays the embedder's"
    fewer = document("search", "red v-neck shirt number 0", "-k", "1", "--rerank", "4", *CHOSEN)["hits"]
    assert [hit["id"] for hit in fewer] == [reranked[0]["id"]], "more may be read again than are shown"
    like = document("search", "--like", "S0-0", "-k", "3", "--rerank", "3", *CHOSEN)["hits"]
    assert len(like) == 3 and all(hit["same"] is not None for hit in like)
    photo = call("search", "--image", "images/0-0-0.png", "-k", "2", "--rerank", "2", *CHOSEN)
    assert photo.exit_code == 0 and photo.stdout.count("same 0.") == 2, photo.output


def test_eval_shows_the_reranked_system_beside_the_embedder(shop: Path) -> None:
    content = document("eval", "--rerank", "5", *CHOSEN)
    names = [system["system"] for system in content["systems"]]
    assert names == ["embedder", "reranked"]
    assert content["seen"]["checkpoints"] == ["reranker-1"], "it is asked about products that no model has seen"
    note = next(note for note in content["notes"] if note.startswith("reranked: "))
    assert "the embedder's first 5 by" in note and "products a second" in note
    assert "logits, and give another verdict in" in note, "what the order of a pair does"
    one, other = ((Path(content["folder"]) / f"run-{name}.trec").read_text().splitlines() for name in names)
    first, second = (
        [line.split()[2] for line in lines if line.split()[0] == one[0].split()[0]] for lines in (one, other)
    )
    assert set(first[:5]) == set(second[:5]) and first[5:] == second[5:]
    assert any(each["against"] == "reranked" for each in content["comparisons"])


def test_dedupe_asks_about_the_pairs_that_are_open(shop: Path) -> None:
    text = shop / "catalog.csv"
    with text.open(newline="", encoding="utf-8") as file:
        rows = [row | {"product_id": "", "image": row["image"].replace("-1-", "-0-")} for row in csv.DictReader(file)]
    with text.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    plain = document("dedupe", "--set", "dedupe.threshold=0.99")
    assert plain["reranked"] is None
    asked = document("dedupe", "--set", "dedupe.threshold=0.99", "--rerank", *CHOSEN, "--html", "pairs.html")
    assert 0 < asked["reranked"]["pairs"] < asked["candidates"] and asked["reranked"]["seconds"] > 0
    told = [pair["reranker"] for pair in asked["pairs"]]
    assert any(value is not None for value in told), "it stands beside the other evidence"
    assert "the reranker says" in (shop / "pairs.html").read_text()


def test_checkpoints_know_the_role(shop: Path) -> None:
    listed = document("checkpoints", "list")
    assert [(each["name"], each["role"]) for each in listed["checkpoints"]] == [("reranker-1", "reranker")]
    assert call("checkpoints", "best", "reranker-1").exit_code == 0
    best = ["--set", "model.reranker_checkpoint=best"]
    assert document("search", "red shirt", "-k", "2", "--rerank", "2", *best)["hits"][0]["same"] is not None
    assert call("checkpoints", "export", "reranker-1", "out", "--to", "afmrl").exit_code == 0
    kept = document("checkpoints", "prune", *CHOSEN)["kept"]
    assert "reranker-1" in kept
    shutil.rmtree(shop / ".afmrl" / "checkpoints" / "reranker-1")
    (shop / ".afmrl" / "checkpoints" / "best.json").unlink()
    assert document("checkpoints", "import", "out")["checkpoint"] == "reranker-1"
    assert document("search", "red shirt", "-k", "2", "--rerank", "2", *CHOSEN)["hits"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["search", "red", "--rerank", "3"], 4, "no reranker: model.reranker_checkpoint names none"),
        (
            ["search", "red", "--rerank", "3", "--set", "model.reranker_checkpoint=nothing"],
            4,
            "no checkpoint 'nothing'",
        ),
        (["eval", "--rerank", "3"], 4, "no reranker: model.reranker_checkpoint names none"),
        (["eval", "--rerank", "3", "--protocol", "coarse", "--label", "neckline", *CHOSEN], 2, "--rerank: coarse asks"),
        (["dedupe", "--rerank"], 4, "no reranker: model.reranker_checkpoint names none"),
        (["search", "red", "--rerank", "3", "--set", "model.generator=nano", *CHOSEN], 4, "was trained on"),
        (["train-rerank", "--generator", "light"], 4, "light has no generator, on which a reranker would be trained"),
        (["search", "red", "--rerank", "3", "--set", "model.generator=light", *CHOSEN], 4, "light has no generator"),
        (["train-rerank", "--pairs", "twins"], 2, "rerank.pairs: 'twins' is no kind of pair"),
        (["train-rerank", "--set", "model.reranker_checkpoint=nothing"], 4, "no checkpoint 'nothing'"),
    ],
)
def test_one_message_and_an_exit_code(shop: Path, words: list[str], code: int, said: str) -> None:
    before = sorted(path for path in shop.rglob("*") if path.suffix == ".safetensors")
    result = call(*words)
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0], result.output
    assert "Traceback" not in result.output
    assert sorted(path for path in shop.rglob("*") if path.suffix == ".safetensors") == before
