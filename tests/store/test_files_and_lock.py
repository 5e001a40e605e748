"""The store under kill -9, a second writer, a full disk and an unwritable folder: real processes and mounts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.cli.errors import explain
from afmrl_cli.errors import DataError
from afmrl_cli.retrieval.cache import VectorCache
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database
from afmrl_cli.store.files import (
    TEMPORARY_PREFIX,
    hash_json,
    make_folder,
    read_json,
    write_json,
    writing,
    writing_folder,
)
from afmrl_cli.store.folder import CatalogFolder, find_folder
from afmrl_cli.store.lock import _who, writer_lock

from ..conftest import MakeDisk, fill
from .adapters import adapter, attributes, manifest


def process(program: str, *words: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", textwrap.dedent(program), *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


HOLDER = """
    import sys
    from pathlib import Path
    from afmrl_cli.store.lock import _who, writer_lock
    from afmrl_cli.store.files import writing
    store = Path(sys.argv[1])
    with writer_lock(store, "attributes"), writing(store / "checkpoints" / "half.json") as temporary:
        temporary.write_text("half")
        print("held", flush=True)
        sys.stdin.readline()
"""


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{TEMPORARY_PREFIX}*"))


def test_a_second_writer_is_refused_or_waits(tmp_path: Path) -> None:
    store = tmp_path / ".afmrl"
    holder = process(HOLDER, store)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    refusal = rf"attributes \(process {holder.pid}\) is writing here"
    with pytest.raises(DataError, match=refusal) as caught, writer_lock(store, "embed"):
        pass
    assert caught.value.exit_code == 3
    begin = time.monotonic()
    with pytest.raises(DataError), writer_lock(store, "embed", wait_seconds=0.3):
        pass
    assert time.monotonic() - begin >= 0.3
    holder.communicate("\n", timeout=60)
    with writer_lock(store, "embed", wait_seconds=5):
        assert not leftovers(store)
    assert (store / "checkpoints" / "half.json").read_text() == "half"
    assert not (store / "lock.json").exists()


def test_a_killed_holder_frees_the_lock_and_its_leftovers_are_removed(tmp_path: Path) -> None:
    store = tmp_path / ".afmrl"
    holder = process(HOLDER, store)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=60)
    assert len(leftovers(store)) == 1
    with writer_lock(store, "embed"):
        assert not leftovers(store)
        assert not (store / "checkpoints" / "half.json").exists()


def test_a_lock_that_is_lent_lets_its_own_commands_in(tmp_path: Path) -> None:
    store = tmp_path / "s"
    with writer_lock(store, "afmrl cycle", lend=True):
        with writer_lock(store, "afmrl embed"):
            pass
        holder = process(HOLDER, store)  # another process is refused still, with the outer command's name
        assert "afmrl cycle (process" in holder.communicate(timeout=120)[1] and holder.returncode
    with writer_lock(store, "afmrl embed"), pytest.raises(DataError), writer_lock(store, "afmrl attributes"):
        pass


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writer_lock(tmp_path / "s", "embed"):
        raise KeyError
    with writer_lock(tmp_path / "s", "embed"):
        pass


def test_writing_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ZeroDivisionError), writing(file) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert file.read_text() == '{\n  "a": 1\n}\n' and not leftovers(tmp_path)
    file.chmod(0o640)
    write_json(file, {"a": 2})
    assert file.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ZeroDivisionError), writing_folder(tmp_path / "folder") as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    assert not (tmp_path / "folder").exists() and not leftovers(tmp_path)
    with writing_folder(tmp_path / "folder") as folder:
        (folder / "x").write_text("x")
    assert (tmp_path / "folder" / "x").read_text() == "x"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"a": float("nan")})


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1} 2', b"\xff"])
def test_a_damaged_document_is_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(DataError, match=r"plan.json: damaged") as caught:
        read_json(tmp_path / "plan.json")
    assert "makes it again" in str(caught.value.hint)


def test_hashes_do_not_follow_the_order_of_keys() -> None:
    assert hash_json({"a": 1, "b": [1, "ö"]}) == hash_json({"b": [1, "ö"], "a": 1}) != hash_json({"a": 1})


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / ".afmrl").write_text("no folder")
    with pytest.raises(DataError, match="can't make this folder"):
        make_folder(tmp_path / ".afmrl" / "runs")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        find_folder(Path("/dev/null"))


# A full disk: a real one, as small as it takes.


@pytest.fixture
def small_disk(make_disk: MakeDisk) -> Path:
    return make_disk("1m")


def test_a_full_disk_is_reported_and_the_store_stays_whole(small_disk: Path, tmp_path: Path) -> None:
    store = CatalogFolder(small_disk / "catalog.csv")
    write_json(store.store / "a.json", {"a": 1})
    with Database(store.database) as database:
        database.put_attributes([attributes("old")])
        ballast = fill(small_disk)
        for work in (
            lambda: database.put_attributes([attributes(f"new{i}", text="x" * 900) for i in range(200)]),
            lambda: write_json(store.store / "a.json", {"a": "x" * 50_000}),
            lambda: VectorCache(store.embeddings).add(["a"], np.zeros((1, 50_000), dtype=np.float32)),
            lambda: Checkpoints(store.checkpoints).add(adapter(tmp_path / "adapter", 100_000), manifest()),
        ):
            with pytest.raises(Exception) as caught:
                work()
            known = explain(caught.value)
            assert known and known[2] == 3 and "full" in known[0], caught.value
            assert ".afmrl/" in known[0] and "writing" not in known[0]
        assert list(database.attributes("g", "p", ["old", "new0"])) == ["old"]
        assert (store.store / "a.json").read_text() == '{\n  "a": 1\n}\n'
        assert Checkpoints(store.checkpoints).list() == [] and not leftovers(small_disk)
        ballast.unlink()
        database.put_attributes([attributes("new0")])
    with Database(store.database) as database:
        assert len(database.attributes("g", "p", ["old", "new0"])) == 2


def test_a_database_can_not_be_made_on_a_full_disk(small_disk: Path) -> None:
    make_folder(small_disk / ".afmrl")
    fill(small_disk)
    with pytest.raises(Exception) as caught:
        Database(small_disk / ".afmrl" / "afmrl.sqlite")
    known = explain(caught.value)
    assert known and known[2] == 3 and "full" in known[0]


def test_a_full_disk_is_not_taken_for_a_damaged_database(small_disk: Path) -> None:
    path = small_disk / "afmrl.sqlite"
    with Database(path) as database:
        database.put_attributes([attributes("old")])
    ballast = fill(small_disk)
    with pytest.raises(Exception) as caught, Database(path) as database:
        database.put_attributes([attributes("new", text="x" * 50_000)])
    known = explain(caught.value)
    assert known and known[2] == 3 and "full" in known[0] and "away" not in known[1]
    ballast.unlink()
    with Database(path) as database:
        assert list(database.attributes("g", "p", ["old", "new"])) == ["old"]


# A folder that can't be written.

WRITER = """
    import sys
    from pathlib import Path
    from afmrl_cli.cli.errors import explain
    from afmrl_cli.store.database import Database
    from afmrl_cli.store.files import write_json
    from afmrl_cli.store.lock import _who, writer_lock
    root = Path(sys.argv[1])
    def locked(store):
        with writer_lock(store, "embed"): pass
    for work in (
        lambda: locked(root / "closed" / ".afmrl"), lambda: locked(root / "half" / ".afmrl"),
        lambda: write_json(root / "closed" / "a.json", 1),
        lambda: Database(root / "closed" / ".afmrl" / "db"), lambda: Database(root / "half" / ".afmrl" / "db"),
    ):
        try: work()
        except Exception as error: print(explain(error))
        else: print("wrote")
"""


READER = """
    import sys
    from pathlib import Path
    from afmrl_cli.store.database import Database
    with Database(Path(sys.argv[1]) / "db") as database:
        print(database.writable, list(database.attributes("g", "p", ["old"])))
"""


def unprivileged() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if not setpriv:
        pytest.skip("as root this needs setpriv")
    return (
        setpriv,
        "--bounding-set=-dac_override,-dac_read_search",
    )  # root may write everywhere, unless it waives that


def test_a_store_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    with Database(tmp_path / "db") as database:
        database.put_attributes([attributes("old")])
    tmp_path.chmod(0o555)
    out, err = process(READER, tmp_path, prefix=unprivileged()).communicate(timeout=60)
    tmp_path.chmod(0o755)
    assert out == "False ['old']\n", err


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "half" / ".afmrl").mkdir(parents=True)
    (tmp_path / "closed").mkdir()
    closed = (tmp_path / "closed", tmp_path / "half" / ".afmrl")
    for folder in closed:
        folder.chmod(0o555)
    out, err = process(WRITER, tmp_path, prefix=unprivileged()).communicate(timeout=60)
    for folder in closed:
        folder.chmod(0o755)
    lines = out.splitlines()
    assert len(lines) == 5, err
    for line in lines:
        assert line.endswith(", 3)"), line
        assert "ermission" in line or "unable to open" in line
        assert str(tmp_path) in line


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b'{"command": 1}', b"\xff", b"[" * 100_000])
def test_a_lock_file_of_any_content_says_that_another_process_writes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock.json").write_bytes(content)
    assert _who(tmp_path / "lock.json") == "another afmrl command"
