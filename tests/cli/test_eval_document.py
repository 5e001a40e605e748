"""The JSON document of `afmrl eval` against its schema: every document is valid, and every key of it is described."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from tests.retrieval.shop import shop_rows, write_shop

SCHEMA = json.loads(files("afmrl_cli.evaluation").joinpath("eval-2.schema.json").read_text("utf-8"))


def closed(schema: Any) -> Any:
    """The schema with no room for keys that it does not describe: in a document of ours there must be none."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and isinstance(schema.get("type"), str | list):
        found.setdefault("additionalProperties", False)
    return found


@pytest.fixture
def shop(tmp_path: Path, tiny_model: Callable[[str], Path]) -> Path:
    write_shop(tmp_path, shop_rows(24))
    settings = f'embedder = "{tiny_model("qwen2_vl")}"\ndevice = "cpu"\nmax_pixels = 3136\n'
    (tmp_path / "afmrl.toml").write_text(f"[model]\n{settings}[eval]\nresamples = 200\n")
    assert CliRunner().invoke(app, ["embed", str(tmp_path)]).exit_code == 0
    return tmp_path


def document(shop: Path, *words: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["eval", str(shop), *words, "--json"])
    assert result.exit_code == code, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def test_every_document_is_as_the_schema_says(shop: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    strict = jsonschema.Draft202012Validator(closed(SCHEMA))
    first = document(shop, "--baselines", "--slices", "all")
    run = shutil.copy(Path(first["folder"]) / "run-embedder.trec", shop / "theirs.trec")
    gates = ["--fail-under", "mrr=1", "--max-drop", "recall@1=0.5"]
    labels = shop / "labels.csv"
    labels.write_text("\n".join(["id,group_id", *(f"s{i},g{i // 4}" for i in range(24))]))
    documents = [
        first,
        document(shop, "--compare", first["folder"], "--merge", str(run), *gates, code=1),
        document(shop, "--protocol", "fine", "--labels", str(labels), "--systems", "colors", "--query-fields", "text"),
        document(shop, "--protocol", "coarse", "--systems", "colors", "--gallery", "brand=acme"),
        document(shop, "--protocol", "composed", "--labels", str(labels), "--systems", "bm25"),
        json.loads((Path(first["folder"]) / "metrics.json").read_text("utf-8")),
    ]
    for content in documents:
        strict.validate(content)
    # What the schema has a word for has been looked at: checks, merged runs, variants, classes, slices, unread queries.
    assert documents[1]["checks"] and documents[1]["systems"][0]["spread"]
    assert documents[2]["systems"][0]["variants"] and not documents[2]["systems"][1]["readable"]
    assert documents[3]["systems"][0]["classes"] and first["slices"]
    embedder, bm25 = documents[4]["systems"]
    assert (
        documents[4]["composed"]["paraphrases"] and embedder["composed"]["subset"] and embedder["composed"]["unchanged"]
    )
    assert bm25["composed"] is None and first["composed"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "afmrl.eval/1"}, "afmrl.eval/2"),
        ({"systems": []}, "systems"),
        ({"queries": -1}, "minimum"),
        ({"checks": [{"kind": "fail_under"}]}, "required property"),
        ({"slices": {"brand": [{"value": "a", "queries": 1, "metrics": {"recal@1": 0}, "intervals": {}}]}}, "recal@1"),
    ],
)
def test_the_schema_refuses_what_is_wrong(shop: Path, change: dict[str, Any], said: str) -> None:
    content = document(shop)
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate({**content, **change}, SCHEMA)
    assert said in str(caught.value)
    jsonschema.validate({**content, "new key": 1}, SCHEMA)  # a later minor addition breaks no reader
