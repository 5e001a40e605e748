"""Which run was the last, whatever the times of the files say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afmrl_cli.cycle.report import find_cycle
from afmrl_cli.errors import DataError
from afmrl_cli.store.files import write_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.store.runs import in_order, new_run, next_number


def cycle(folder: CatalogFolder, name: str, content: object, hour: int) -> Path:
    """cycle.json of a cycle that the clock says was written in that hour."""
    place = folder.runs / name
    place.mkdir(parents=True)
    write_json(place / "cycle.json", content)
    os.utime(place / "cycle.json", (hour * 3600, hour * 3600))
    return place / "cycle.json"


def test_the_last_cycle_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    folder = CatalogFolder(tmp_path / "catalog.csv")
    with pytest.raises(DataError, match="no cycle"):
        find_cycle(folder)
    assert next_number([]) == 1
    earlier = [cycle(folder, "cycle-old-b", {}, 9), cycle(folder, "cycle-old-a", {}, 8)]  # of a version without numbers
    assert find_cycle(folder).name == "cycle-old-b"
    first, second = cycle(folder, "cycle-z", {"number": 1}, 7), cycle(folder, "cycle-c", {"number": 2}, 1)
    every = [second, *earlier, first]
    assert in_order(every) == [earlier[1], earlier[0], first, second]
    assert next_number(every) == 3
    assert find_cycle(folder).name == "cycle-c" and find_cycle(folder, "cycle-z").name == "cycle-z"
    with pytest.raises(DataError, match="no cycle x") as caught:
        find_cycle(folder, "x")
    assert caught.value.hint == "there are: cycle-old-b, cycle-z, cycle-c"


def test_a_damaged_document_is_named(tmp_path: Path) -> None:
    folder = CatalogFolder(tmp_path / "catalog.csv")
    cycle(folder, "cycle-a", {"number": 1}, 1)
    cycle(folder, "cycle-b", {"number": 2}, 2).write_text('{"number": 2')
    with pytest.raises(DataError, match=r"cycle-b/cycle.json: damaged") as caught:
        find_cycle(folder)
    assert "remove this file" in caught.value.hint
    assert find_cycle(folder, "cycle-a").name == "cycle-a"


def test_commands_in_one_second_get_a_folder_each(tmp_path: Path) -> None:
    made = [new_run(tmp_path / "runs", "eval") for _ in range(4)]
    assert len(set(made)) == 4 and all(folder.is_dir() for folder in made)
    assert {folder.name.split("-")[1] for folder in made} == {"eval"}
