"""`afmrl demo` on a tiny shop: every step runs, again it takes up what is done, and the report's path comes last."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli import demo
from afmrl_cli.cli.app import app
from afmrl_cli.cli.output import Output
from afmrl_cli.nano.shop import ShopPlan, write_shop

TINY = {
    "AFMRL_ATTRIBUTES_MAX_NEW_TOKENS": "40",
    "AFMRL_AGCL_BATCH_SIZE": "4",
    "AFMRL_AGCL_STEPS": "2",
    "AFMRL_RAR_STEPS": "1",
    "AFMRL_RAR_GALLERY": "16",
    "AFMRL_RAR_PROMPTS": "2",
    "AFMRL_RAR_GROUP": "2",
    "AFMRL_RAR_VALIDATE_EVERY": "1",
    "AFMRL_RAR_VALIDATION_QUERIES": "4",
    "AFMRL_RAR_MARGIN": "1",
    "AFMRL_COMPOSED_BATCH_SIZE": "8",
    "AFMRL_COMPOSED_STEPS": "1",
    "AFMRL_RECOMMENDER_BATCH_SIZE": "4",
    "AFMRL_RECOMMENDER_STEPS": "2",
    "AFMRL_RECOMMENDER_SHORTLIST": "3",
    "AFMRL_RECOMMENDER_VALIDATION_QUESTIONS": "20",
    "AFMRL_RECOMMENDER_GRPO_STEPS": "1",
    "AFMRL_RECOMMENDER_PROMPTS": "2",
    "AFMRL_RECOMMENDER_GROUP": "2",
    "AFMRL_EVAL_RESAMPLES": "100",
}


@pytest.mark.slow
def test_the_whole_loop_on_a_tiny_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TINY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("afmrl_cli.cli.demo.PHOTO_SIZE", 56)
    monkeypatch.setattr("afmrl_cli.cli.demo.SHOPPERS", 60)
    monkeypatch.setattr("afmrl_cli.cli.demo.QUESTIONS", 12)
    shop = tmp_path / "shop"
    done = CliRunner().invoke(app, ["demo", str(shop), "--products", "60", "--json"])
    assert done.exit_code == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["schema"] == "afmrl.demo/1"
    steps = {step["command"][1]: step["result"] for step in content["steps"]}
    assert [step["command"][1] for step in content["steps"]] == [
        *("check", "cycle", "embed", "eval", "search", "search", "search"),
        *("interactions", "train-recommender", "recommend", "eval-recommender", "report"),
    ]
    results = steps["cycle"]["leaderboard"]
    assert [stage["name"] for stage in results] == ["base", "AGCL", "attributes", "RAR", "composed"]
    # What is searched and evaluated at the end is what the cycle has chosen.
    kept = steps["cycle"]["lineage"]["embedder"]
    assert (kept or "nano") in steps["embed"]["embedder"] and steps["eval"]["embedder"] == steps["embed"]["embedder"]
    last = next(stage for stage in reversed(results) if stage["accepted"] and not stage["baseline"])["test"]
    assert steps["eval"]["enrich"] == ("both" if steps["cycle"]["attributes"] else "none")
    ours = next(each for each in steps["eval"]["systems"] if each["system"] == "embedder")
    assert ours["metrics"]["recall@1"] == pytest.approx(last["metrics"]["recall@1"])
    assert Path(content["report"]).is_file() and Path(content["report"]) == Path(steps["report"]["file"])
    result = CliRunner().invoke(app, ["demo", str(shop), "--products", "60"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.rstrip().endswith(content["report"]) and "1-agcl" not in result.stderr
    for stage in results:
        assert f" {stage['name']} " in result.stdout
    made = steps["cycle"]["composed"]
    assert made["checkpoint"] and f"-> {made['checkpoint']}; change and interval of R@10" in result.stdout
    assert made["validation"]["asked"] == "triplets" and " validation " in result.stdout
    assert (shop / "afmrl.toml").is_file() and len(list((shop / "pages").glob("*.html"))) == 4
    rows = {row["system"]: row for row in steps["eval-recommender"]["systems"]}
    assert {"fused", "recommender", "oracle"} <= rows.keys() and steps["eval-recommender"]["questions"] <= 12
    assert steps["recommend"]["ranking"] == "recommender" and len(steps["recommend"]["products"]) == 5
    words = " ".join(result.stdout.split())
    gained = rows["recommender"]["metrics"]["ndcg@10"] - rows["fused"]["metrics"]["ndcg@10"]
    assert f"{rows['oracle']['metrics']['ndcg@10']:.3f} by the oracle" in words
    assert ("gained nothing that shows" in words) or gained > 0


def test_the_shop_has_shoppers_and_an_earlier_one_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afmrl_cli.cli.demo.PHOTO_SIZE", 28)
    plan = ShopPlan(60, demo.SEED, 1.0, details=True, duplicates=1.0, leave_out=0.8, phone=True, size=28)
    write_shop(tmp_path, plan)
    (tmp_path / "afmrl.toml").write_text('[model]\npreset = "nano"\n')
    before = (tmp_path / "catalog.csv").read_bytes()
    out = Output(json_mode=True, quiet=False, verbose=False)

    demo._write_shop(tmp_path, 60, out)

    assert (tmp_path / "catalog.csv").read_bytes() == before
    customers = {row["customer"] for row in csv.DictReader((tmp_path / "interactions.csv").open())}
    assert demo.CUSTOMER in customers and len(customers) == demo.SHOPPERS + 1, "and a bot"
    assert (tmp_path / "truth" / "shoppers.json").is_file()
    assert (tmp_path / "afmrl.toml").read_text() == '[model]\npreset = "nano"\n', "an own file stays"


def test_another_catalog_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\n1,mine\n")
    done = CliRunner().invoke(app, ["demo", str(tmp_path), "--products", "60"])
    assert done.exit_code == 3 and "another catalog" in done.stderr
    assert (tmp_path / "catalog.csv").read_text() == "id,title\n1,mine\n" and not (tmp_path / "afmrl.toml").exists()
