"""Folders that say what lies in them: whatever is not what was stored is reported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from afmrl_cli.store.files import find_damage, sealed, write_json, writing_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "vectors"
    (place / "below").mkdir(parents=True)
    (place / "a.npy").write_bytes(b"0" * 3_000_000)
    (place / "ids.txt").write_text("one\ntwo\n")
    (place / "below" / "other").write_text("x")
    return place


def test_what_is_sealed_is_sound(folder: Path) -> None:
    content = sealed({"model": "m", "count": 2}, folder)
    assert content["model"] == "m" and sorted(content["files"]) == ["a.npy", "ids.txt"]
    assert find_damage(json.loads(json.dumps(content)), folder) == ""
    # Sealed again, with something changed: the files are not read again, and the earlier seal is none of the content.
    (folder / "a.npy").unlink()
    again = sealed({**content, "count": 3}, folder)
    assert again["files"] == content["files"] and again["seal"] != content["seal"]
    assert find_damage(again, folder) == "a.npy is missing"


def test_what_differs_is_named(folder: Path) -> None:
    content = sealed({"count": 2}, folder)
    changes: list[dict[str, Any]] = [{"count": 3}, {"files": {}}, {"seal": "0" * 16}, {"more": 1}]
    for change in changes:
        assert find_damage({**content, **change}, folder) == "what describes them is not what was stored"
    assert find_damage({key: value for key, value in content.items() if key != "seal"}, folder)
    with (folder / "a.npy").open("r+b") as file:  # one byte, far behind what is read at a time
        file.seek(2_999_999)
        file.write(b"1")
    assert find_damage(content, folder) == "a.npy is not what was stored"


def test_writing_holds_no_file_open_and_leaves_the_masks_alone(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        opened = len(list(Path("/proc/self/fd").iterdir()))
        for i in range(3):
            write_json(tmp_path / f"{i}.json", {})
            with writing_folder(tmp_path / f"{i}") as folder:
                (folder / "x").write_text("x")
        assert len(list(Path("/proc/self/fd").iterdir())) == opened
        assert (tmp_path / "2.json").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "2").stat().st_mode & 0o777 == 0o750
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave a name with nothing behind it."""
    done: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("on disk", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def renamed(source: Any, target: Any) -> None:
        done.append(("renamed", Path(source).stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_json(tmp_path / "a.json", {})
    number = (tmp_path / "a.json").stat().st_ino
    assert done == [("on disk", number), ("renamed", number)]
    done.clear()
    with writing_folder(tmp_path / "folder") as folder:
        (folder / "below").mkdir()
        for name in ("x", "below/y"):
            (folder / name).write_text(name)
    inside = {("on disk", (tmp_path / "folder" / name).stat().st_ino) for name in ("x", "below/y")}
    assert set(done[:2]) == inside and done[2:] == [("renamed", (tmp_path / "folder").stat().st_ino)]
