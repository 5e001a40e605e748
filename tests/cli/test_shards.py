"""--shard and merge as schedulers and people run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from afmrl_cli.catalog import photo_check
from afmrl_cli.catalog.images import check_image
from afmrl_cli.settings import CatalogSettings
from tests.attributes.shop import answer, make_shop, read_catalog, stored, texts, write_catalog
from tests.chat_server import ChatServer, Reply, chat_server
from tests.conftest import kill_once

from .calls import call, document

EXAMPLES = Path(__file__).parents[2] / "examples" / "shards"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.script = answer
        yield running


@pytest.fixture
def attributes(server: ChatServer) -> Callable[..., Any]:
    """`afmrl attributes` by the server; `merge` finds the model in the variables."""
    os.environ |= {"AFMRL_ATTRIBUTES_ENDPOINT": server.url, "AFMRL_ATTRIBUTES_ENDPOINT_MODEL": "m"}

    def run(root: Path, *more: str) -> Any:
        return call("attributes", str(root), "--batch-size", "2", *more)

    return run


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AFMRL_ATTRIBUTES_ENDPOINT", "AFMRL_ATTRIBUTES_ENDPOINT_MODEL"):
        monkeypatch.setenv(name, "")


def test_attributes_in_shards_are_those_of_one_process(
    server: ChatServer, attributes: Callable[..., Any], tmp_path: Path
) -> None:
    folder, whole = make_shop(tmp_path / "a", 24), make_shop(tmp_path / "b", 24)
    assert attributes(whole.root).exit_code == 0
    server.requests.clear()
    server.script = lambda number, body: answer(number, body) if number < 4 else Reply(delay=60.0)
    kill_once(lambda: len(server.requests) > 4, lambda: attributes(folder.root, "--shard", "0/2"))
    server.script = answer
    assert attributes(folder.root, "--shard", "1/2").exit_code == 0
    refused = call("merge", str(folder.root))
    assert refused.exit_code == 3 and "shard 0/2 has not ended" in refused.stderr
    assert not folder.database.exists() or not stored(folder)
    done = attributes(folder.root, "--shard", "0/2", "--json")
    assert json.loads(done.stdout)["skipped"] == 4
    merged = document("merge", str(folder.root))
    assert (merged["schema"], merged["attributes"]) == ("afmrl.merge/1", {"shards": 2, "texts": 24})
    assert texts(folder) == texts(whole)
    keys = [{row.fingerprint: row.listing for row in stored(each).values()} for each in (folder, whole)]
    assert keys[0] == keys[1]
    assert json.loads(attributes(folder.root, "--json").stdout)["generated"] == 0, "nothing is left to do"
    assert call("merge", str(folder.root)).exit_code == 3, "nothing is left to merge"


def test_a_shard_generates_only_what_the_store_does_not_have(
    server: ChatServer, attributes: Callable[..., Any], tmp_path: Path
) -> None:
    folder = make_shop(tmp_path, 8)
    attributes(folder.root)
    rows = read_catalog(folder.root)
    write_catalog(folder.root, [*rows[:-1], (rows[-1][0], "Another item", *rows[-1][2:])])
    server.requests.clear()
    done = [json.loads(attributes(folder.root, "--shard", f"{i}/3", "--json").stdout) for i in range(3)]
    assert sum(each["generated"] for each in done) == len(server.requests) == 1
    assert sum(each["products"] for each in done) == 8
    before = stored(folder)
    assert document("merge", str(folder.root))["attributes"]["texts"] == 1
    assert stored(folder) | before == stored(folder) | {"sku7": before["sku7"]}


def test_what_the_store_has_learnt_since_the_shards_were_made_stays(
    server: ChatServer, attributes: Callable[..., Any], tmp_path: Path
) -> None:
    folder = make_shop(tmp_path, 3)
    attributes(folder.root, "--shard", "0/1")
    server.script = lambda number, body: Reply("color: newest")
    attributes(folder.root)
    assert document("merge", str(folder.root))["attributes"]["texts"] == 3
    assert {text for text, _ in texts(folder).values()} == {"color: newest"}


def test_wrong_words_are_refused_in_a_line(attributes: Callable[..., Any], tmp_path: Path) -> None:
    folder = make_shop(tmp_path, 3)
    for words in (["attributes", "--shard", "2/2"], ["embed", "--shard", "a"], ["embed", "--shard", "0/2", "--force"]):
        done = call(words[0], str(folder.root), *words[1:])
        assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) <= 2, done.output
    done = attributes(folder.root, "--shard", "0/2", "--limit", "3")
    assert done.exit_code == 2 and "--limit" in done.stderr
    nothing = call("merge", str(folder.root))
    assert nothing.exit_code == 3 and "no shards to merge" in nothing.stderr


def scripts() -> dict[str, list[tuple[list[str], dict[str, str]]]]:
    """What each scheduler starts for a folder in two shards: words and variables, FOLDER for the folder."""
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())["spec"]
    count, container = job["completions"], job["template"]["spec"]["containers"][0]["command"]
    container = [
        word.replace("/shop", "FOLDER").replace(f"/{count}", "/2").replace("embed", "attributes") for word in container
    ]
    slurm = ["bash", str(EXAMPLES / "slurm.sh"), "attributes", "FOLDER"]
    return {
        "xargs": [(["sh", str(EXAMPLES / "xargs.sh"), "FOLDER", "2", "2"], {"COMMANDS": "attributes"})],
        "slurm": [(slurm, {"SLURM_ARRAY_TASK_ID": str(i), "SLURM_ARRAY_TASK_COUNT": "2"}) for i in range(2)],
        "kubernetes": [(container, {"JOB_COMPLETION_INDEX": str(i)}) for i in range(2)],
    }


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["xargs", "slurm", "kubernetes"])
def test_the_schedulers_scripts_make_the_store_of_one_process(
    scheduler: str, attributes: Callable[..., Any], tmp_path: Path
) -> None:
    folder, whole = make_shop(tmp_path / "a", 12), make_shop(tmp_path / "b", 12)
    attributes(whole.root)
    program = tmp_path / "bin" / "afmrl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m afmrl_cli "$@"\n')
    program.chmod(0o755)
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    running = [
        subprocess.Popen(
            [word.replace("FOLDER", str(folder.root)) for word in words], env={**os.environ, **path, **more}
        )
        for words, more in scripts()[scheduler]
    ]
    assert [each.wait(timeout=300) for each in running] == [0] * len(running)
    if scheduler != "xargs":  # whose script merges
        assert call("merge", str(folder.root)).exit_code == 0
    assert texts(folder) == texts(whole)


def test_a_check_in_shards_is_that_of_one_process_and_opens_no_photo_twice(tmp_path: Path) -> None:
    root = make_shop(tmp_path, 30).root
    (root / "images/7.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    for i in range(10, 16):  # a photo that several products share, over both shards
        shutil.copy(root / "images/9.png", root / f"images/{i}.png")
    alone = document("check", str(root), code=1)
    kinds = {problem["kind"] for problem in alone["problems"]}
    assert {"unreadable image", "shared photo"} <= kinds
    parts = [document("check", str(root), "--shard", f"{i}/2") for i in range(2)]
    assert [sum(part[key] for part in parts) for key in ("products", "opened", "unreadable")] == [30, 30, 1]
    assert document("check", str(root), "--shard", "0/2")["opened"] == 0, "what was found stays"
    merged = document("merge", str(root), code=1)
    assert merged["check"].pop("shards") == 2
    assert merged["check"] == {key: value for key, value in alone.items() if key != "schema"}
    assert call("check", str(root), "--shard", "0/2", "--no-images").exit_code == 2


def test_a_merged_check_opens_photos_that_the_shards_have_not_seen_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_shop(tmp_path, 6).root
    document("check", str(root), "--shard", "0/1")
    (root / "images/3.png").write_bytes(b"broken since")
    opened: list[Path] = []

    def noted(path: Path, settings: CatalogSettings) -> Any:
        opened.append(path)
        return check_image(path, settings)

    monkeypatch.setattr(photo_check, "check_image", noted)
    merged = document("merge", str(root), code=1)
    assert [path.name for path in opened] == ["3.png"]
    assert merged["check"]["problems"][0]["kind"] == "unreadable image"


def test_half_a_line_of_a_killed_check_costs_its_photo_alone(tmp_path: Path) -> None:
    root = make_shop(tmp_path, 6).root
    document("check", str(root), "--shard", "0/1")
    (file,) = root.glob(".afmrl/shards/*/0/photos.jsonl")
    file.write_bytes(file.read_bytes()[:-9])
    assert document("check", str(root), "--shard", "0/1")["opened"] == 1
    assert document("merge", str(root))["check"]["ok"]
