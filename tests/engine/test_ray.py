"""--engine ray by the real Ray: the store of one process, whoever is killed, and nothing that goes on running."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from afmrl_cli.engine.ray_data import Engine, Plan, Tally, plan_workers
from afmrl_cli.engine.worker import Job
from afmrl_cli.errors import UsageError
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.embed_shard import embed_group, join_vectors
from afmrl_cli.retrieval.vectors import vectors_folder
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from tests import NANO
from tests.attributes.shop import make_shop, texts
from tests.cli.calls import call
from tests.retrieval.shop import Row, shop_rows, work_of, write_shop

COUNT, CHUNK = 100, 4
MARK = "RAY_TEST_MARK"
LISTENING, LOOPBACK = "0A", {"0100007F", "0000000000000000FFFF00000100007F"}
ENDED_SECONDS = 120.0
"""Ray sees by and by that a command was killed: on busy cores that has taken more than half a minute."""


class Machine:
    """Starts commands whose processes, Ray's own among them, are known by a variable that they inherit."""

    def __init__(self) -> None:
        self.mark = f"{MARK}={uuid.uuid4().hex}"

    def start(
        self, *words: str, program: tuple[str, ...] = ("-m", "afmrl_cli"), variables: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        name, _, value = self.mark.partition("=")
        environment = {**os.environ, **(variables or {}), name: value, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, *program, *words]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        return self.end(self.start(*words), code)

    def end(self, process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
        """What it has written to standard output and standard error."""
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, err
        return out, err

    def running(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def addresses(self) -> set[str]:
        """Where its processes listen: hexadecimal, as in /proc/net/tcp."""
        sockets = set()
        for pid in self.running():
            for each in Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    sockets.add(str(each.readlink()).removeprefix("socket:[").rstrip("]"))
        tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        rows = [line.split() for lines in tables for line in lines]
        return {row[1].partition(":")[0] for row in rows if row[3] == LISTENING and row[9] in sockets}

    def wait_until_all_have_ended(self) -> None:
        end = time.monotonic() + ENDED_SECONDS
        while self.running() and time.monotonic() < end:
            time.sleep(0.2)
        left = self.running()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, "processes go on running"


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.wait_until_all_have_ended()


@pytest.fixture
def folder(tmp_path: Path) -> CatalogFolder:
    return write_shop(tmp_path / "shop", rows_of(COUNT))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> CatalogFolder:
    """The same shop, embedded by one process."""
    folder = write_shop(tmp_path_factory.mktemp("whole"), rows_of(COUNT))
    embed_catalog(work_of(folder, one_by_one()))
    return folder


def one_by_one() -> Settings:
    return load_settings(None, {"embed.batch_size": 1}, NANO)


def rows_of(count: int) -> list[Row]:
    """Listings with a photo each: the last bits of a vector depend on what the model reads together with it."""
    return [row | {"image": row["image"].split("|")[0]} for row in shop_rows(count)]


def words(folder: CatalogFolder, *more: str) -> tuple[str, ...]:
    return ("embed", str(folder.root), "--batch-size", "1", "--engine", "ray", "--json", *more)


def chunks(folder: CatalogFolder) -> list[Path]:
    return list(folder.store.glob("shards/*/*/vectors/[!.]*.json"))


def begun(folder: CatalogFolder, process: subprocess.Popen[str]) -> int:
    """Wait until two chunks are there; how many vectors that is."""
    while len(chunks(folder)) < 2 and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]
    return CHUNK * len(chunks(folder))


def is_the_store_of_one_process(folder: CatalogFolder, whole: CatalogFolder) -> bool:
    stores = [next(each.store.glob("embeddings/*/v1")) for each in (folder, whole)]
    same = [len({(each / name).read_bytes() for each in stores}) == 1 for name in ("vectors.npy", "listings.arrow")]
    return all(same) and not list(folder.store.glob("shards/*"))


@pytest.mark.slow
def test_a_worker_is_killed_and_the_store_is_that_of_one_process_bit_for_bit(
    machine: Machine, folder: CatalogFolder, whole: CatalogFolder
) -> None:
    process = machine.start(*words(folder, "--workers", "2"))
    there = begun(folder, process)
    holders = [json.loads(each.read_text()) for each in folder.store.glob("shards/*/*/lock.json")]
    assert machine.addresses() <= LOOPBACK
    os.kill(holders[0]["pid"], signal.SIGKILL)
    out, err = machine.end(process)
    assert "its worker was lost, another goes on" in err
    assert re.search(r"Ray: 2 workers, \d+ cores? each, 8 shards", err)
    document = json.loads(out)
    assert document["products"] == COUNT
    assert document["encoded"] > 0
    assert is_the_store_of_one_process(folder, whole), there


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on_where_it_was(
    machine: Machine, folder: CatalogFolder, whole: CatalogFolder
) -> None:
    process = machine.start(*words(folder, "--workers", "2"))
    there = begun(folder, process)
    process.kill()
    process.communicate()
    machine.wait_until_all_have_ended()
    out, _ = machine.run(*words(folder))  # with one worker now, and as many shards as before
    assert 0 < json.loads(out)["encoded"] <= COUNT - there
    assert is_the_store_of_one_process(folder, whole)
    again = json.loads(machine.run(*words(folder))[0])
    assert (again["encoded"], again["changed"]) == (0, False)


@pytest.mark.slow
def test_attributes_are_those_of_one_process(machine: Machine, tmp_path: Path) -> None:
    folder, other = make_shop(tmp_path / "a", 12), make_shop(tmp_path / "b", 12)
    command = ["attributes", "--batch-size", "1", "--json"]
    alone = json.loads(machine.run(*command, str(other.root))[0])
    by_ray = json.loads(machine.run(*command, str(folder.root), "--engine", "ray", "--workers", "2")[0])
    assert texts(folder) == texts(other)
    for key in ("products", "views", "generated", "valid", "failures", "problems"):
        assert by_ray[key] == alone[key], key


SCRIPT = """
import json, sys
from afmrl_cli.engine.ray_data import Engine, run_shards
from afmrl_cli.engine.worker import Job
from afmrl_cli.listener import Notes
from afmrl_cli.retrieval.vectors import vectors_folder
from tests.engine.test_ray import one_by_one
from tests.retrieval.shop import work_of
from afmrl_cli.store.folder import CatalogFolder
from pathlib import Path
if __name__ == "__main__":
    work, notes = work_of(CatalogFolder(Path(sys.argv[1])), one_by_one()), Notes()
    job = Job("embed", work.folder, work.settings)
    run_shards(job, vectors_folder(work).name, Engine(photo_actors=2), notes)
    print(json.dumps(notes.warnings))
"""


@pytest.mark.slow
def test_photos_that_actors_open_make_the_same_vectors_and_broken_ones_are_told(
    machine: Machine, tmp_path: Path
) -> None:
    folders = []
    for name in ("by-ray", "alone"):
        folders.append(write_shop(tmp_path / name, rows_of(20)))
        (folders[-1].root / "images/7.png").write_bytes(b"no photo")
    process = machine.start("-c", SCRIPT, str(folders[0].catalog), program=())
    (warning,) = json.loads(machine.end(process)[0])
    assert "unreadable image: row 9 (id s7): 7.png" in warning
    embed_catalog(work_of(folders[1], one_by_one()))
    work = work_of(folders[0], one_by_one())
    group = embed_group(work)
    assert group is not None
    join_vectors(work, group)
    made, expected = (np.load(vectors_folder(work_of(each, one_by_one())) / "v1/vectors.npy") for each in folders)
    assert np.array_equal(made, expected)


@pytest.mark.slow
def test_a_cluster_that_is_there_is_used_and_left_as_it_is(
    machine: Machine, folder: CatalogFolder, whole: CatalogFolder
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = ("start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--block")
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300"}
    more = ("--include-dashboard=false", "--object-store-memory=100000000")
    cluster = machine.start(*head, *more, program=("-m", "ray.scripts.scripts"), variables=quiet)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and cluster.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.5)
        command = machine.start(*words(folder, "--address", f"127.0.0.1:{port}"), variables=quiet)
        machine.end(command)
        assert cluster.poll() is None
        assert is_the_store_of_one_process(folder, whole)
    finally:
        os.killpg(cluster.pid, signal.SIGKILL)
        cluster.communicate()


@pytest.mark.slow
def test_what_a_worker_raises_ends_the_command_in_two_lines(machine: Machine, folder: CatalogFolder) -> None:
    (folder.root / "images/7.png").write_bytes(b"no photo")
    _, err = machine.run(*words(folder, "-q", "--set", "catalog.bad_images=fail"), code=3)
    assert "7.png: row 9 (id s7): unreadable image" in err
    assert len(err[err.index("error:") :].strip().splitlines()) == 2, err


def refused(folder: CatalogFolder, *more: str) -> str:
    done = call("embed", str(folder.root), *more)
    error = done.stderr[done.stderr.index("error:") :]  # after what is warned of
    assert done.exit_code == 2 and len(error.strip().splitlines()) <= 2, done.output
    return error


def test_an_address_where_no_ray_answers_is_told_in_two_lines(tmp_path: Path) -> None:
    folder = write_shop(tmp_path, rows_of(2))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        said = refused(folder, "--engine", "ray", "--address", address)
    assert f"--address {address}: no answer (Connection refused)" in said
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        threading.Thread(target=lambda: other.accept()[0].sendall(b"HTTP/1.0 400 Bad Request"), daemon=True).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert "what answers there is no Ray" in refused(folder, "--engine", "ray", "--address", address)
    for address in ("ray://127.0.0.1:1", "here", "127.0.0.1:99999"):
        assert "not of the form HOST:PORT" in refused(folder, "--engine", "ray", "--address", address)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(write_shop(tmp_path, rows_of(2)), "--engine", "ray")
    assert "--engine ray needs ray" in said and "afmrl-cli[ray]" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--engine", "spark"), "no such engine"),
        (("--engine", "ray", "--force"), "--engine goes without --force"),
        (("--engine", "ray", "--shard", "0/2"), "--engine goes without --shard"),
        (("--workers", "2"), "--workers goes with --engine"),
        (("--address", "a:1"), "--address goes with --engine"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in refused(write_shop(tmp_path, rows_of(2)), *flags)


NODES = {"gpu": {"CPU": 16.0, "GPU": 2.0}, "large": {"CPU": 16.0}, "small": {"CPU": 6.0}, "one": {"CPU": 1.0}}


@pytest.mark.parametrize(
    ("nodes", "workers", "flags", "plan"),
    [
        (["one"], None, {}, Plan(1, 1, 0, 0)),
        (["small"], None, {}, Plan(1, 4, 0, 0)),
        (["large", "small"], None, {}, Plan(5, 4, 0, 0)),
        (["large", "small"], 2, {}, Plan(2, 8, 0, 0)),
        (["small"], 6, {}, Plan(6, 1, 0, 0)),
        (["gpu", "gpu", "small"], None, {}, Plan(4, 8, 1, 4)),
        (["gpu"], 1, {}, Plan(1, 8, 1, 4)),
        (["gpu"], None, {"model.device": "cpu"}, Plan(4, 4, 0, 0)),
        (["gpu"], None, {"embed.endpoint": "http://127.0.0.1:1", "embed.endpoint_model": "m"}, Plan(1, 16, 0, 0)),
    ],
)
def test_workers_take_gpus_or_cores(
    nodes: list[str], workers: int | None, flags: dict[str, object], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afmrl_cli.engine.ray_data.OPENERS", 4)
    assert plan_of(nodes, workers, flags) == plan


def plan_of(nodes: list[str], workers: int | None, flags: dict[str, object]) -> Plan:
    job = Job("embed", CatalogFolder(Path("catalog.csv")), load_settings(None, flags, NANO))
    return plan_workers([NODES[name] for name in nodes], job, Engine(workers=workers))


@pytest.mark.parametrize(("node", "workers"), [("small", 7), ("gpu", 3)])
def test_more_workers_than_there_is_room_for_are_refused(node: str, workers: int) -> None:
    with pytest.raises(UsageError, match=rf"--workers {workers}: the cluster has [0-9]+ (GPUs|cores)"):
        plan_of([node], workers, {})


def test_the_tally_adds_progress_up_and_tells_each_message_once() -> None:
    tally = Tally()
    for shard, done in ((0, 10), (1, 5), (0, 20)):
        tally.begin(shard)
        tally.progress(shard, "embedding", done)
        tally.say("warning", "out of memory")
    news = tally.news()
    assert news.done == {"embedding": 25}
    assert news.said == [("warning", "out of memory"), ("note", "shard 0: its worker was lost, another goes on")]
    assert tally.news().said == []
