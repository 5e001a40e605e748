from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from afmrl_cli.cli.errors import explain
from afmrl_cli.errors import DataError
from afmrl_cli.store.database import SCHEMA_VERSION, Database, StoredImageHash

from .adapters import attributes


def test_rows_come_back_by_fingerprint_generator_and_prompt(tmp_path: Path) -> None:
    rows = [
        attributes("f1"),
        attributes("f2", text="", failure="empty"),
        attributes("f1", generator="other", text="other: generator"),
        attributes("f1", prompt="other", text="other: prompt"),
    ]
    with Database(tmp_path / "deep" / "db.sqlite") as database:
        database.put_attributes(rows)
    with Database(tmp_path / "deep" / "db.sqlite") as database:
        assert database.attributes("g", "p", ["f1", "f2", "f3"]) == {"f1": rows[0], "f2": rows[1]}
        assert database.attributes("other", "p", ["f1"]) == {"f1": rows[2]}
        database.put_attributes([attributes("f1", text="new: text")])
        assert database.attributes("g", "p", ["f1"])["f1"].text == "new: text"
        assert database.attributes("g", "p", []) == {}


def test_whose_texts_there_are_and_how_many_failed(tmp_path: Path) -> None:
    rows = [attributes(f"f{i}", generator="z", text=f"number: {i}") for i in range(3)]
    rows += [attributes("f1", generator=name) for name in ("few", "also few")]
    rows += [attributes(f"f{i}", generator="few", prompt="q", text="", failure="empty") for i in range(5)]
    with Database(tmp_path / "db.sqlite") as database:
        database.put_attributes(rows)
        assert list(database.attribute_sources().items()) == [("z", 3), ("also few", 1), ("few", 1)]
        assert [database.invalid_attributes(name) for name in ("few", "z")] == [5, 0]
        assert sorted(row.text for row in database.valid_attributes("z", "p")) == [
            "number: 0",
            "number: 1",
            "number: 2",
        ]
        assert database.valid_attributes("few", "q") == []


def test_many_fingerprints_at_once(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(20_000)]
    with Database(tmp_path / "db.sqlite") as database:
        database.put_attributes([attributes(name) for name in names])
        begin = time.monotonic()
        assert len(database.attributes("g", "p", names)) == 20_000
        assert time.monotonic() - begin < 10


def version_1(path: Path) -> None:
    """A store as the first version wrote it, with a second sample that nobody read."""
    connection = sqlite3.connect(path)
    connection.executescript("""
        PRAGMA journal_mode = WAL;
        CREATE TABLE attributes (
            fingerprint TEXT NOT NULL, generator TEXT NOT NULL, prompt TEXT NOT NULL, sample INTEGER NOT NULL,
            listing TEXT NOT NULL, text TEXT NOT NULL, failure TEXT, created REAL NOT NULL,
            PRIMARY KEY (fingerprint, generator, prompt, sample)) WITHOUT ROWID;
        CREATE TABLE images (
            path TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
            ) WITHOUT ROWID;
        INSERT INTO attributes VALUES ('f1', 'g', 'p', 0, 'A', 'color: navy', NULL, 1.5);
        INSERT INTO attributes VALUES ('f1', 'g', 'p', 1, 'A', 'color: red', NULL, 1.5);
        INSERT INTO attributes VALUES ('f2', 'g', 'p', 0, 'B', 'well,', 'unparsable', 2.5);
        INSERT INTO images VALUES ('a.png', 1, 2, 'h');
        PRAGMA user_version = 1;
    """)
    connection.close()


def test_a_store_of_the_first_version_is_brought_up_to_date_in_place(tmp_path: Path) -> None:
    version_1(tmp_path / "db.sqlite")
    expected = {
        "f1": attributes("f1", viewed=False),
        "f2": attributes("f2", listing="B", text="well,", failure="unparsable", created=2.5, viewed=False),
    }
    for _ in range(2):
        with Database(tmp_path / "db.sqlite") as database:
            assert database.attributes("g", "p", ["f1", "f2"]) == expected
            assert database.image_hashes(["a.png"])["a.png"].sha256 == "h"
    with Database(tmp_path / "db.sqlite") as database:
        database.put_attributes([attributes("f1", text="color: blue")])
        assert database.attributes("g", "p", ["f1"])["f1"] == attributes("f1", text="color: blue")
    connection = sqlite3.connect(tmp_path / "db.sqlite")
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


def version_2(path: Path) -> None:
    """A store as the second version wrote it: a row with its checksum and a damaged one, no confidence."""
    version_1(path)
    checksum = zlib.crc32(b"'f1'\0'g'\0'p'\0'A'\0'color: navy'\0None\x001.5\x001.0")
    connection = sqlite3.connect(path)
    connection.executescript(f"""
        DROP TABLE attributes;
        CREATE TABLE attributes (
            fingerprint TEXT NOT NULL, generator TEXT NOT NULL, prompt TEXT NOT NULL,
            listing TEXT NOT NULL, text TEXT NOT NULL, failure TEXT, created REAL NOT NULL, viewed INTEGER NOT NULL,
            crc32 INTEGER, PRIMARY KEY (fingerprint, generator, prompt)) WITHOUT ROWID;
        ALTER TABLE images ADD COLUMN crc32 INTEGER;
        INSERT INTO attributes VALUES ('f1', 'g', 'p', 'A', 'color: navy', NULL, 1.5, 1, {checksum});
        INSERT INTO attributes VALUES ('f2', 'g', 'p', 'A', 'color: damaged', NULL, 1.5, 1, 7);
        PRAGMA user_version = 2;
    """)
    connection.close()


@pytest.mark.parametrize("writable", [True, False])
def test_a_store_of_the_second_version_is_read_and_knows_of_no_confidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    version_2(tmp_path / "db.sqlite")
    if not writable:
        monkeypatch.setattr("os.access", lambda path, mode: False)
    with Database(tmp_path / "db.sqlite") as database:
        assert database.writable == writable
        row = attributes("f1", listing="A", text="color: navy", created=1.5)
        assert database.attributes("g", "p", ["f1", "f2"]) == {"f1": row}
        assert database.valid_attributes("g", "p") == [row]
        if writable:
            told = replace(row, confidence="color: 0.5000")
            database.put_attributes([told])
            assert database.attributes("g", "p", ["f1"]) == {"f1": told}
            database._connection.execute("UPDATE attributes SET confidence = 'color: 0.9000' WHERE fingerprint = 'f1'")
            assert database.attributes("g", "p", ["f1"]) == {}  # damaged


def test_a_store_of_the_first_version_that_can_not_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_1(tmp_path / "db.sqlite")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with Database(tmp_path / "db.sqlite") as database:
        assert not database.writable
        assert database.attributes("g", "p", ["f1"]) == {"f1": attributes("f1", viewed=False)}
        assert database.attribute_sources() == {"g": 1}
        assert database.image_hashes(["a.png", "b.png"]) == {"a.png": StoredImageHash("a.png", 1, 2, "h")}


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    with Database(tmp_path / "db.sqlite") as database:
        with pytest.raises(sqlite3.IntegrityError):
            database.put_attributes([attributes("f1"), attributes("f2", text=None)])
        assert database.attributes("g", "p", ["f1", "f2"]) == {}
        database.put_attributes([attributes("f1")])


def test_image_hashes(tmp_path: Path) -> None:
    with Database(tmp_path / "db.sqlite") as database:
        rows = [StoredImageHash(f"{i}", i, 2**62, f"h{i}") for i in range(1200)]
        database.put_image_hashes(rows)
        database.put_image_hashes([changed := StoredImageHash("7", 8, 9, "new")])
        found = database.image_hashes([*(row.path for row in rows), "none"])
        assert found == {row.path: row for row in rows} | {"7": changed}


WRITER = """
    import sqlite3, sys
    from pathlib import Path
    from afmrl_cli.store.database import Database
    from tests.store.adapters import attributes
    with Database(Path(sys.argv[1])) as database:
        database.put_attributes([attributes("written")])
        connection = database._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO attributes SELECT 'open', generator, prompt, listing, text, failure, "
            "created, viewed, NULL, NULL FROM attributes")
        print("open", flush=True)
        sys.stdin.readline()
        connection.execute("COMMIT")
"""


def test_a_reader_is_not_blocked_by_a_writer_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    root = Path(__file__).parents[2]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert writer.stdout and writer.stdout.readline() == "open\n"
    begin = time.monotonic()
    with Database(path) as database:
        assert list(database.attributes("g", "p", ["written", "open"])) == ["written"]
    assert time.monotonic() - begin < 15  # a blocked one would wait for 30
    writer.communicate("\n", timeout=60)
    with Database(path) as database:
        assert sorted(database.attributes("g", "p", ["written", "open"])) == ["open", "written"]


def test_killed_inside_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    root = Path(__file__).parents[2]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert writer.stdout and writer.stdout.readline() == "open\n"
    writer.kill()
    writer.communicate(timeout=60)
    with Database(path) as database:
        assert list(database.attributes("g", "p", ["written", "open"])) == ["written"]
        database.put_attributes([attributes("after")])


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "db.sqlite").close()
    connection = sqlite3.connect(tmp_path / "db.sqlite")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(DataError, match="written by a newer afmrl"):
        Database(tmp_path / "db.sqlite")


def test_a_damaged_file_is_a_known_error(tmp_path: Path) -> None:
    (tmp_path / "noise.sqlite").write_bytes(b"no database at all" * 300)
    with Database(tmp_path / "cut.sqlite") as database:
        database.put_attributes([attributes(f"f{i}") for i in range(3000)])
    whole = (tmp_path / "cut.sqlite").read_bytes()
    (tmp_path / "cut.sqlite").write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    for name in ("noise", "cut"):
        with pytest.raises(sqlite3.DatabaseError) as caught, Database(tmp_path / f"{name}.sqlite") as database:
            database.attributes("g", "p", ["f1"])
        known = explain(caught.value)
        assert known and known[2] == 3 and "afmrl.sqlite" in known[0]


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite").mkdir()
    with pytest.raises(DataError, match="unable to open"):
        Database(tmp_path / "db.sqlite")
