"""A store from a stranger: nothing outside is written, deleted or read through a link in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.errors import DataError
from afmrl_cli.store.folder import CatalogFolder, check_store, find_folder
from afmrl_cli.store.lock import writer_lock

PLACES = (
    ".afmrl",
    ".afmrl/lock",
    ".afmrl/lock.json",
    ".afmrl/afmrl.sqlite",
    ".afmrl/embeddings",
    ".afmrl/embeddings/nano-1-plain-2",
    ".afmrl/embeddings/nano-1-plain-2/pending",
    ".afmrl/embeddings/nano-1-plain-2/current",
    ".afmrl/cache/vision/0123456789abcdef",
    ".afmrl/checkpoints/best.json",
    ".afmrl/runs/20260101T000000Z-eval",
    ".afmrl/images/ab",
)
COMMANDS = (
    ["check"],
    ["embed"],
    ["search", "--catalog", "", "red"],
    ["attributes"],
    ["fetch-images"],
    ["dedupe"],
    ["train-agcl"],
    ["checkpoints", "list", "--catalog", ""],
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "catalog.csv").write_text("id,title\n1,a red shirt\n")
    return root


def outside(tmp_path: Path) -> dict[Path, bytes | None]:
    """A folder with what commands would write, delete or read, and what is in it."""
    place = tmp_path / "outside"
    (place / "v1").mkdir(parents=True)
    for name in ("a.json", ".writing-x", "b.safetensors", "v1/vectors.npy"):
        (place / name).write_text(json.dumps(name))
    return content(place)


def content(place: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(place.rglob("*"))}


def run(words: list[str], shop: Path) -> tuple[int, str]:
    given = [str(shop) if word == "" else word for word in words]
    done = CliRunner().invoke(app, given if "" in words else [*given, str(shop)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.stderr.split())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("leads_to", ["folder", "file", "nothing"])
def test_no_command_follows_a_link_in_the_store(tmp_path: Path, shop: Path, place: str, leads_to: str) -> None:
    before = outside(tmp_path)
    targets = {"folder": tmp_path / "outside", "file": tmp_path / "outside/a.json", "nothing": tmp_path / "outside/new"}
    link = shop / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(targets[leads_to])
    for words in COMMANDS if place in PLACES[:3] and leads_to == "folder" else COMMANDS[:1]:
        code, said = run(words, shop)
        assert code == 3 and "is a link" in said and "Traceback" not in said, (words, said)
    for start, configured in ((shop, ""), (shop, "catalog.csv"), (shop / "catalog.csv", "")):
        with pytest.raises(DataError, match="is a link"):
            find_folder(start, lambda root, name=configured: name)  # type: ignore[misc]
    with pytest.raises(DataError, match="is a link") as refused, writer_lock(shop / ".afmrl", "test"):
        pass
    assert str(refused.value).startswith(f"{link}: ")
    assert content(tmp_path / "outside") == before


def test_a_pipe_in_the_store_is_refused_and_not_waited_for(shop: Path) -> None:
    (shop / ".afmrl").mkdir()
    os.mkfifo(shop / ".afmrl/lock.json")
    with pytest.raises(DataError, match=r"lock\.json: is neither a file nor a folder"):
        find_folder(shop)


def test_a_store_without_links_and_one_that_is_not_there_are_fine(shop: Path) -> None:
    check_store(shop / ".afmrl")
    with writer_lock(shop / ".afmrl", "test"):
        check_store(shop / ".afmrl")


@pytest.mark.parametrize("start", ["shop", "shop/catalog.csv"])
def test_a_catalog_that_is_a_link_out_of_its_folder_is_refused(tmp_path: Path, shop: Path, start: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (shop / "catalog.csv").rename(elsewhere / "secret.csv")
    (shop / "catalog.csv").symlink_to(elsewhere / "secret.csv")
    with pytest.raises(DataError, match="is a link that leads to"):
        find_folder(tmp_path / start)
    (shop / "afmrl.toml").write_text('[catalog]\npath = "catalog.csv"\n')
    with pytest.raises(DataError, match="is a link that leads to"):
        find_folder(shop, lambda root: "catalog.csv")
    assert run(["check"], tmp_path / start)[0] == 3
    assert not (elsewhere / ".afmrl").exists()


def test_a_link_inside_of_the_folder_and_a_link_to_the_folder_are_followed(tmp_path: Path, shop: Path) -> None:
    (shop / "latest.csv").symlink_to("catalog.csv")
    assert find_folder(shop / "latest.csv") == CatalogFolder(shop / "catalog.csv")
    (tmp_path / "link").symlink_to(shop)
    assert find_folder(tmp_path / "link/catalog.csv") == CatalogFolder(shop / "catalog.csv")
