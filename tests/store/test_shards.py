"""Shards: which products are whose, which process may work where, and which shards belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.errors import DataError, UsageError
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.lock import writer_lock
from afmrl_cli.store.shards import Group, Shard, complete_group, facts_of, open_shard, parse_shard, shard_of

IDS = [f"sku{i}" for i in range(1000)]


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    (tmp_path / "catalog.csv").write_text("id,title\n1,Shirt\n")
    return CatalogFolder(tmp_path / "catalog.csv")


def facts(folder: CatalogFolder, **settings: Any) -> dict[str, Any]:
    return facts_of(folder, Settings.model_validate(settings), "embed")


def make(folder: CatalogFolder, *shards: str, model: str = "m", **settings: Any) -> None:
    for shard in shards:
        with open_shard(folder, "embed", model, parse_shard(shard), facts(folder, **settings)) as opened:
            opened.result["products"] = 1


def merged(folder: CatalogFolder, model: str = "m", **settings: Any) -> Group:
    return complete_group(folder, "embed", model, facts(folder, **settings))


def test_each_product_is_of_one_shard_and_they_are_about_equal() -> None:
    shards = [Shard(i, 4) for i in range(4)]
    taken = [[id for id in IDS if shard.takes(id)] for shard in shards]
    assert sorted(id for part in taken for id in part) == sorted(IDS)
    assert all(200 < len(part) < 300 for part in taken)


def test_the_division_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert [shard_of(id, 10) for id in ("sku0", "sku1", "Größe", "\udc80")] == [1, 1, 2, 5]


@pytest.mark.parametrize("text", ["1", "a/b", "-1/2", "1/0", "1/2/3", "", "0/1000000"])
def test_what_is_no_shard_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form i/n"):
        parse_shard(text)


def test_shards_count_from_0() -> None:
    with pytest.raises(UsageError) as caught:
        parse_shard("2/2")
    assert "0/2 to 1/2" in str(caught.value.hint)


def test_complete_shards_of_the_same_settings_are_a_group(folder: CatalogFolder) -> None:
    make(folder, "0/2", "1/2", embed={"batch_size": 1})
    group = merged(folder, embed={"batch_size": 8, "endpoint": "http://127.0.0.1:1"})
    assert [each.name for each in group.folders] == ["0", "1"]
    assert group.results() == [{"products": 1}] * 2
    group.remove()
    assert list((folder.store / "shards").iterdir()) == []


def test_a_lost_shard_is_named(folder: CatalogFolder) -> None:
    make(folder, "0/3", "2/3")
    with pytest.raises(DataError, match="shard 1/3 is missing") as caught:
        merged(folder)
    assert "--shard 1/3" in str(caught.value.hint)


def test_a_shard_that_was_ended_is_named(folder: CatalogFolder) -> None:
    make(folder, "0/2", "1/2")
    with pytest.raises(KeyboardInterrupt), open_shard(folder, "embed", "m", Shard(1, 2), facts(folder)):
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="shard 1/2 has not ended"):
        merged(folder)


def test_shards_of_several_settings_models_divisions_or_catalogs_are_refused(folder: CatalogFolder) -> None:
    make(folder, "0/2")
    make(folder, "1/2", embed={"enrich": "both"})
    with pytest.raises(DataError, match=r"shard 1/2 was made with other settings: embed\.enrich = 'both'"):
        merged(folder)
    with pytest.raises(DataError, match="was begun with other settings"):
        make(folder, "1/2")
    with pytest.raises(DataError, match="the shards are of embed-m-of-2, the settings name other"):
        merged(folder, "other")
    make(folder, "0/4")
    with pytest.raises(DataError, match="several divisions: embed-m-of-2, embed-m-of-4"):
        merged(folder)


def test_a_shard_of_another_catalog_is_named_and_made_anew(folder: CatalogFolder) -> None:
    make(folder, "0/2", "1/2")
    folder.catalog.write_text("id,title\n1,Shirt\n2,Coat\n")
    make(folder, "0/2")
    with pytest.raises(DataError, match="shard 1/2 was made with another content of the catalog"):
        merged(folder)
    make(folder, "1/2")
    assert len(merged(folder).folders) == 2


def test_the_same_shard_is_not_made_twice_at_once_and_others_are(folder: CatalogFolder) -> None:
    with open_shard(folder, "embed", "m", Shard(0, 2), facts(folder)):
        with pytest.raises(DataError, match=r"afmrl embed --shard 0/2 \(process [0-9]+\) is writing here"):
            make(folder, "0/2")
        make(folder, "1/2")
    assert len(merged(folder).folders) == 2


def test_nothing_else_writes_while_a_shard_is_made(folder: CatalogFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        open_shard(folder, "embed", "m", Shard(0, 1), facts(folder)),
        pytest.raises(DataError, match="embed --shard 0/1"),
        writer_lock(folder.store, "afmrl merge"),
    ):
        pass
    monkeypatch.setattr("afmrl_cli.store.shards.WAIT_SECONDS", 0.0)
    with writer_lock(folder.store, "afmrl merge"), pytest.raises(DataError, match="afmrl merge"):
        make(folder, "0/1")


def test_a_catalog_that_changes_meanwhile_leaves_the_shard_undone(folder: CatalogFolder) -> None:
    with (
        pytest.raises(DataError, match="has changed while the shard was made"),
        open_shard(folder, "embed", "m", Shard(0, 1), facts(folder)),
    ):
        folder.catalog.write_text("id,title\n2,Coat, another\n")
    with pytest.raises(DataError, match="shard 0/1 has not ended"):
        merged(folder)
