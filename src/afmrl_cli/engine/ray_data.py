"""Ray Data as the engine: the shards of one command stream through a pool of actors that keep their models.

    shard numbers ──map_batches──> Worker actors (a GPU each, or some cores) ──> what each shard came to
                                     └─ photo actors beside a GPU: open and reduce the photos of the next batches

A worker's files are those of `--shard i/n`; between the processes go shard numbers, summaries, progress and, of opened
photos, no more than two groups of batches a worker. Ray starts a worker that dies again, and its shard with it, which
goes on from its files. The division stays as it was while shards are there, whatever the cluster has become, so that
the same command goes on after its own end, too.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..catalog.pictures import OPENERS
from ..errors import ModelError, UsageError
from ..listener import Listener, Silent
from ..models.device import cuda_devices
from ..store.shards import Shard, division
from .worker import Job, KeptWorkspace, Outcome, do_shard

INSTALL = "python -m pip install 'afmrl-cli[ray]'"
ADDRESS = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})")
CORES_EACH = 4
"""Of a worker without a GPU, by default."""
SHARDS_EACH = 4
"""Shards a worker where there are several, so that none waits long for the last one. Each reads the catalog once."""
BEGINNINGS = 5
"""Of a shard whose workers die. Ray itself would begin it without end."""
CONNECT_SECONDS = 5.0
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins: with an empty frame of type 4, settings, as the server does."""
PROGRESS_SECONDS = 0.5
STORE_BYTES = 256 * 2**20
"""For opened photos between processes. Ray itself takes 30 % of the memory, which /dev/shm of a container (64 MiB)
does not have; so little it puts on a disk there instead."""


@dataclass(frozen=True)
class Engine:
    """Where and how wide: `address` "" for a cluster of this command alone; None is left to what the cluster has."""

    address: str = ""
    workers: int | None = None
    photo_actors: int | None = None


def run_shards(job: Job, model: str, engine: Engine, listener: Listener) -> list[Outcome]:
    """Do all shards of `job`, whose files are named by `model`, and return what each came to.

    Raises UsageError where Ray or the cluster can't be had, ModelError when it fails, and what a worker raises; what
    has been done stays, and the same call goes on.
    """
    if missing := next((name for name in ("ray", "msgpack") if find_spec(name) is None), ""):
        raise UsageError(f"--engine ray needs {missing}, which is not installed", INSTALL)
    if engine.address:
        _check_address(engine.address)
    divided = division(job.folder, job.command, model)
    with _cluster(engine.address) as ray:
        plan = plan_workers([node["Resources"] for node in ray.nodes() if node["Alive"]], job, engine)
        count = divided or (plan.workers * SHARDS_EACH if plan.workers > 1 else 1)
        listener.note(f"Ray: {plan}, {count} shard{'s' * (count > 1)}")
        try:
            return list(_stream(ray, job, plan, count, listener))
        except ray.exceptions.RayError as error:
            raise _failed(error) from error


@dataclass(frozen=True)
class Plan:
    """How many workers there are, and what each has; `photo_actors` of its cores open photos."""

    workers: int
    cpus: int
    gpus: int
    photo_actors: int

    def __str__(self) -> str:
        each = f"a GPU and {self.cpus} cores each" if self.gpus else f"{self.cpus} core{'s' * (self.cpus > 1)} each"
        return f"{self.workers} worker{'s' * (self.workers > 1)}, {each}"


def plan_workers(nodes: Sequence[dict[str, float]], job: Job, engine: Engine) -> Plan:
    """Divide the cluster's `nodes`: a worker a GPU, else CORES_EACH cores a worker, one worker for a server's model.

    Raises UsageError where there is no room for so many workers.
    """
    settings, wanted = job.settings, engine.workers
    endpoint = settings.embed.endpoint if job.command == "embed" else settings.attributes.endpoint
    gpus = [(int(node["GPU"]), int(node.get("CPU", 0))) for node in nodes if node.get("GPU", 0) >= 1]
    if gpus and not endpoint and settings.model.device != "cpu":
        has, cpus = sum(gpu for gpu, _ in gpus), max(1, min(cpu // gpu for gpu, cpu in gpus))
        if (wanted or 1) > has:
            raise UsageError(f"--workers {wanted}: the cluster has {has} GPUs", "one worker takes one GPU")
        opening = min(OPENERS, cpus - 1) if engine.photo_actors is None else engine.photo_actors
        return Plan(wanted or has, cpus, 1, opening)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    most = max(cores, default=0) if wanted or endpoint else min(CORES_EACH, max(cores, default=0))
    least = wanted or 1
    for cpus in range(most, 0, -1):
        if (room := sum(each // cpus for each in cores)) >= least:
            return Plan(least if wanted or endpoint else room, cpus, 0, engine.photo_actors or 0)
    raise UsageError(f"--workers {least}: the cluster has {sum(cores)} cores", "one worker takes at least one")


def _stream(ray: Any, job: Job, plan: Plan, count: int, listener: Listener) -> Iterator[Outcome]:
    """Yield what each shard came to, as they end, while progress and messages of all workers go to `listener`."""
    tally = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tally).remote()
    shards = ray.data.from_items([{"shard": i} for i in range(count)], override_num_blocks=count)
    ended = shards.map_batches(
        Worker,
        fn_constructor_args=(job, count, tally, plan.photo_actors),
        compute=ray.data.ActorPoolStrategy(size=plan.workers, max_tasks_in_flight_per_actor=1),
        batch_size=1,
        num_cpus=plan.cpus,
        num_gpus=plan.gpus,
    )
    over = threading.Event()

    def relay() -> None:
        with suppress(ray.exceptions.RayError):
            while not over.wait(PROGRESS_SECONDS):
                tell(ray.get(tally.news.remote()), listener)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        for row in ended.iter_rows():
            outcome = row["outcome"]
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        over.set()
        thread.join()
        with suppress(ray.exceptions.RayError):
            tell(ray.get(tally.news.remote()), listener)


@dataclass(frozen=True)
class News:
    """What has happened since: how far each kind of work is, and (kind, message) of what the workers said."""

    done: dict[str, int]
    said: list[tuple[str, str]]


def tell(news: News, listener: Listener) -> None:
    """Pass it on."""
    for kind, message in news.said:
        (listener.warn if kind == "warning" else listener.note)(message)
    for what, done in news.done.items():
        listener.progress(what, done)


class Tally:
    """The actor that hears of all workers: progress is added up, each message passed on once."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, int], int] = {}
        self._said: dict[tuple[str, str], None] = {}
        self._told = 0
        self._begun: Counter[int] = Counter()

    def begin(self, shard: int) -> int:
        """Take note of a worker at a shard, the next one goes on where one died; return how many there were."""
        if self._begun[shard]:
            self.say("note", f"shard {shard}: its worker was lost, another goes on")
        self._begun[shard] += 1
        return self._begun[shard]

    def progress(self, shard: int, what: str, done: int) -> None:
        """Take note of how far a shard is."""
        self._done[what, shard] = done

    def say(self, kind: str, message: str) -> None:
        """Take note of a message, once."""
        self._said[kind, message] = None

    def news(self) -> News:
        """Return how far all are, and what is new."""
        done: Counter[str] = Counter()
        for (what, _), number in self._done.items():
            done[what] += number
        said = list(self._said)[self._told :]
        self._told += len(said)
        return News(done, said)


class Relay(Silent):
    """A worker's listener: what it hears goes to the tally, of progress only that of the models."""

    def __init__(self, tally: Any) -> None:
        self._tally, self.shard = tally, -1

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        """Pass it on, if it is of a model."""
        if what in ("attributes", "embedding"):
            self._tally.progress.remote(self.shard, what, done)

    def note(self, message: str) -> None:
        """Pass it on."""
        self._tally.say.remote("note", message)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self._tally.say.remote("warning", message)


class Worker:
    """The actor that does shards."""

    def __init__(self, job: Job, count: int, tally: Any, photo_actors: int) -> None:
        from .photos import PhotoActors

        self._job, self._count, self._tally, self._relay = job, count, tally, Relay(tally)
        self._work = KeptWorkspace(job.folder, job.settings, self._relay)
        if photo_actors:
            self._work.prepared = PhotoActors(photo_actors).serve

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the shard of this number. What it raises is an outcome, too: Ray would wrap it, and begin again."""
        import ray

        shard = Shard(int(batch["shard"][0]), self._count)
        self._relay.shard = shard.index
        outcome: object
        try:
            if ray.get(self._tally.begin.remote(shard.index)) > BEGINNINGS:
                raise ModelError(
                    f"shard {shard}: {BEGINNINGS} workers have died", "too little memory, or a damaged file"
                )
            outcome = do_shard(self._work, self._job, shard)
        except Exception as error:
            outcome = error
        kept = np.empty(1, dtype=object)  # np.array would look into what is a sequence
        kept[0] = outcome
        return {"outcome": kept}


def _check_address(address: str) -> None:
    """Raise UsageError where nothing answers as Ray does, in HTTP/2: Ray itself waits for minutes."""
    form = ADDRESS.fullmatch(address)
    if not form or int(form[2]) > 65535:
        raise UsageError(f"--address {address[:100]}: not of the form HOST:PORT", "for example 10.0.0.1:6379")
    hint = "`ray start --head` starts a cluster there; without --address the command starts one of its own"
    try:
        with socket.create_connection((form[1].strip("[]"), int(form[2])), CONNECT_SECONDS) as connection:
            connection.sendall(GREETING)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except OSError as error:
        raise UsageError(f"--address {address}: no answer ({error.strerror or error})", hint) from None
    if answer[3:4] != GREETING[-6:-5]:
        raise UsageError(f"--address {address}: what answers there is no Ray", hint)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Connect to the cluster, or start one that listens on 127.0.0.1 alone, with a password, and ends with the block or
    with this process; yield the module `ray`.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # by default 30 s, not enough where cores are busy
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what its C++ writes goes to our standard error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack, redirect_stdout(sys.stderr):  # where Ray prints why it has lost a worker
        if not address:
            # Sockets lie in it, whose paths are at most 107 bytes long: not where TMPDIR may lead.
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="afmrl-ray-", dir="/tmp", ignore_cleanup_errors=True)
            )
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: on busy cores they would hardly run
            # Without this, which is meant for other systems, Ray takes the machine's own address for 127.0.0.1, and
            # listens on all there are.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
            quiet |= {
                "num_cpus": len(os.sched_getaffinity(0)),
                "num_gpus": cuda_devices(),
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": str(Path(folder).resolve()),
            }
        import ray
        import ray.data

        stack.callback(ray.shutdown)
        try:
            with _silence():
                ray.init(address=address or "local", **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise _failed(error, f"--address {address}: " if address else "Ray can't be started: ") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        yield ray


@contextmanager
def _silence() -> Iterator[None]:
    """Keep standard error clean while Ray's C++ says what its log level is."""
    there, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(there, 2)
        os.close(there)
        os.close(nowhere)


def _failed(error: BaseException, where: str = "Ray: ") -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return ModelError(f"{where}{lines[0][:300]}", "what has been done stays: the same command goes on from there")
