"""Ten thousand malformed inputs through the real commands: what they must never do.

    python -m benchmarks.fuzz [--count 10000 | --quick] [--seed 0] [--jobs 2] [--keep fuzz-failures] [--only 4711]

Every input (benchmarks/hostile.py) is put into a folder of its own and read by `afmrl check`, `afmrl init` and, by
kind, the function that reads it. A fault is

  * an exception that is no known failure: a traceback;
  * more than 10 seconds of processor time, or two minutes by the clock;
  * a file outside of the catalog's folder opened, listed or changed, or one of the retailer's changed; a connection
    or a process started (seen by Python's audit events, by the time of last reading and the content of files beside
    the folder, and by their content in what is said);
  * more than 2 GiB of memory, address space included, on top of the loaded libraries;
  * an answer that is no JSON document with --json, fills more than a screen, or steers a terminal; an attribute answer
    that leaves its schema.

Inputs with a fault are kept in --keep, with what was seen; `--only NUMBER` runs one again. Exit code 1 when there is
one. Linux only.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any

from .hostile import SECRET, make

ROOT = Path(__file__).parents[1]
SECONDS = 10
"""Of processor time, which does not depend on what else runs here."""
HANGS = 120
"""By the clock: then the process is ended."""
MEMORY = 2 << 30
SCREEN_LINES, SCREEN_CHARS = 90, 12_000
KNOWN_CODES = {0, 1, 2, 3}
READS = {"open", "os.listdir", "os.scandir"}
WRITES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "os.link",
    "os.symlink",
    "os.utime",
}
NEVER = (
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.",
    "os.exec",
    "os.posix_spawn",
    "os.system",
    "ctypes.dlopen",
)


class Fault(Exception):
    """What an input must never do; the message says what was seen."""


class Watch:
    """The audit hook: which files are touched while an input is read."""

    def __init__(self) -> None:
        self.shop: Path | None = None
        self.faults: list[str] = []
        libraries = {
            Path(place).resolve() for place in (sys.prefix, sys.base_prefix, str(ROOT / "src"), *sys.path) if place
        }
        self._readable = (*(f"{place}/" for place in libraries), "/dev/null", "/proc/", "/sys/", "/usr/share/zoneinfo")
        sys.addaudithook(self._seen)

    def _seen(self, event: str, args: tuple[Any, ...]) -> None:
        if self.shop is None:
            return
        if event.startswith(NEVER):
            self.faults.append(f"{event} {args[:2]!r}")
        elif event in READS or event in WRITES:
            written = event in WRITES or (event == "open" and self._writes(args))
            for name in args[:2] if event in ("os.rename", "os.link", "os.symlink") else args[:1]:
                if isinstance(name, str | bytes | os.PathLike):
                    self._place(event, os.path.abspath(os.fsdecode(name)), written)  # noqa: PTH100

    def _writes(self, args: tuple[Any, ...]) -> bool:
        _, mode, flags = args
        return any(sign in (mode or "") for sign in "wax+") or bool(
            (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )

    def _place(self, event: str, name: str, written: bool) -> None:
        assert self.shop
        shop, work = str(self.shop), str(self.shop.parent)
        inside = name == shop or name.startswith(f"{shop}/")
        result = f"{name}/".startswith((f"{shop}/.afmrl/", f"{work}/out/"))
        if not (result if written else inside or result or name.startswith(self._readable)):
            self.faults.append(f"{event} {name}{' to write' if written else ''}")


def state(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` but the tool's own, with its content."""
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".afmrl" not in path.parts and path.relative_to(folder).parts[0] != "out"
    }


def lay_out(work: Path, number: int, seed: int) -> tuple[str, Path]:
    """Kind and folder of input `number`, beside a file that is none of its business."""
    kind, files = make(number, seed)
    shop, outside = work / "shop", work / "outside"
    shop.mkdir()
    outside.mkdir()
    (work / "out").mkdir()
    (outside / "secret.csv").write_text(f"id,title\n1,{SECRET}\n")
    shutil.copy(PHOTO, outside / "photo.png")
    if kind in ("catalog", "feed", "settings", "queries"):
        (shop / "images").mkdir()
        shutil.copy(PHOTO, shop / "images" / "a.png")
        (shop / "images" / "link.png").symlink_to(outside / "photo.png")
    for name, content in files.items():
        (shop / name).write_bytes(content)
    for path in outside.iterdir():
        os.utime(path, (1, 2))  # relatime: the next reading sets the first
    return kind, shop


PHOTO = Path(tempfile.gettempdir()) / f"afmrl-fuzz-{os.getpid()}.png"


@lru_cache
def command() -> Any:
    """`afmrl`, made once: Typer takes longer to make it than most inputs to be read."""
    from typer.main import get_command

    from afmrl_cli.cli.app import app

    return get_command(app)


def say(words: list[str]) -> None:
    """Run `afmrl WORDS`; Fault for what it must not do."""
    from afmrl_cli.escaping import STEERS

    out, err = io.StringIO(), io.StringIO()
    line = f"afmrl {' '.join(words)}"
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = command().main(words, prog_name="afmrl", standalone_mode=False)
    except Exception as error:
        raise Fault(f"{line}: a traceback of {type(error).__name__}") from error
    shown = out.getvalue() + err.getvalue()
    if (code or 0) not in KNOWN_CODES:
        raise Fault(f"{line}: exit code {code}: {shown[-400:]}")
    if "--json" in words:
        json.loads(out.getvalue())
    elif words[0] != "config" and (shown.count("\n") > SCREEN_LINES or len(shown) > SCREEN_CHARS):
        raise Fault(f"{line}: {shown.count(chr(10))} lines, {len(shown)} characters: more than a screen")
    if SECRET in shown:
        raise Fault(f"{line}: shows what stands in a file outside of the folder")
    if "--json" not in words and (found := STEERS.search(shown)):
        raise Fault(f"{line}: steers the terminal: {shown[max(0, found.start() - 30) : found.end() + 10]!r}")


def run_catalog(shop: Path, number: int) -> None:
    flags = [["--json"], [], ["--no-images"], ["--json", "--out", str(shop.parent / "out" / "problems.csv")]][
        number % 4
    ]
    say(["check", str(shop), *flags])
    say(["init", str(shop), *(["--json"] if number % 3 else [])])


def run_image(shop: Path, number: int) -> None:
    from afmrl_cli.catalog.images import ImageProblem, check_image, open_image
    from afmrl_cli.settings import CatalogSettings

    say(["check", str(shop), "--json"])
    settings = CatalogSettings()
    photo = next(path for path in shop.iterdir() if path.name.startswith("a"))
    try:
        opened = open_image(photo, settings)
    except ImageProblem:
        pass
    else:
        check_image(photo, settings)
        if opened.mode != "RGB" or opened.width * opened.height > settings.max_image_pixels:
            raise Fault(f"a photo of mode {opened.mode} and {opened.size} pixels")


def run_attributes(shop: Path, number: int) -> None:
    from afmrl_cli.attributes.parse import InvalidAttributes, clean_value, parse_attributes, write_attributes
    from afmrl_cli.attributes.schema import AttributeSchema, read_answer
    from afmrl_cli.settings import AttributeSettings, SchemaKey

    text = (shop / "answer.txt").read_bytes().decode("utf-8", "surrogatepass")
    keys = {"Color": SchemaKey(values=["Red", "Navy"]), "neck": SchemaKey(values=["v-neck", "crew"], multiple=True)}
    settings = AttributeSettings(keys=keys)
    kept, failure = read_answer(text, False, AttributeSchema.from_settings(settings), "", settings)
    if kept is not None:
        allowed = {"color": {"Red", "Navy"}, "neck": {"v-neck", "crew", "v-neck, crew", "crew, v-neck"}}
        if any(value not in allowed.get(key, ()) for key, value in parse_attributes(kept).items()):
            raise Fault(f"outside of the schema: {kept!r}")
    elif not failure:
        raise Fault("neither kept nor refused")
    try:
        pairs = parse_attributes(text)
    except InvalidAttributes:
        pairs = {}
    if pairs and parse_attributes(write_attributes(pairs)) != pairs:
        raise Fault(f"reads differently the second time: {pairs!r}")
    value = clean_value(text)[:100].strip(" .:,")
    if value and parse_attributes(f"x: {value}") != {"x": value}:
        raise Fault(f"a cleaned value that does not fit: {value!r}")


def run_settings(shop: Path, number: int) -> None:
    say(["check", str(shop), "--no-images"])
    say(["config", str(shop), *(["--json"] if number % 2 else [])])
    say(["init", str(shop), "--json"])


def run_queries(shop: Path, number: int) -> None:
    from afmrl_cli.errors import AfmrlError
    from afmrl_cli.evaluation.labels import read_labels
    from afmrl_cli.evaluation.trec import read_qrels, read_queries, read_run

    asked, products = ["q1", "q2"], ["1", "2"]
    readers: list[Callable[[], object]] = [
        lambda: read_queries(shop / "queries.jsonl"),
        lambda: read_qrels(shop / "qrels.trec", asked, products),
        lambda: read_qrels(shop / "qrels.tsv"),
        lambda: read_run(shop / "run.trec", asked, products),
        lambda: read_labels(shop / "labels.csv", products, lambda problem: None),
    ]
    for read in readers:
        try:
            read()
        except AfmrlError as error:
            if len(str(error)) > 2_000:
                raise Fault(f"a message of {len(str(error))} characters") from error


RUNS = {"image": run_image, "attributes": run_attributes, "settings": run_settings, "queries": run_queries}


def peak_memory() -> int:
    """The most bytes in memory since `/proc/self/clear_refs` was written."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def run_one(number: int, seed: int, watch: Watch) -> dict[str, Any]:
    """kind, fault (or ""), seconds of processor time, and peak memory in bytes of one input."""
    with tempfile.TemporaryDirectory(prefix="afmrl-fuzz-") as name:
        work = Path(name).resolve()
        kind, shop = lay_out(work, number, seed)
        before = state(work)
        for path in (work / "outside").iterdir():
            os.utime(path, (1, 2))
        Path("/proc/self/clear_refs").write_text("5")
        began, fault = time.process_time(), ""
        os.chdir(shop)
        watch.shop, watch.faults = shop, []
        faulthandler.dump_traceback_later(HANGS, exit=True)
        try:
            RUNS.get(kind, run_catalog)(shop, number)
        except (Exception, SystemExit) as error:
            import traceback

            lines = traceback.format_exception(error)
            fault = f"{error}\n{''.join(lines)[-3000:]}"
        finally:
            watch.shop = None
            faulthandler.cancel_dump_traceback_later()
            os.chdir(ROOT)
        seconds, peak = time.process_time() - began, peak_memory()
        if watch.faults:
            fault += f"\ntouched: {'; '.join(sorted(set(watch.faults))[:5])}"
        if any(path.stat().st_atime > 1 for path in (work / "outside").iterdir()):
            fault += "\na file outside of the folder was read"
        if state(work) != before:
            fault += "\na file was changed"
        if seconds > SECONDS:
            fault += f"\ntook {seconds:.1f} s"
        if peak > MEMORY:
            fault += f"\n{peak >> 20:,} MiB in memory"
        return {"kind": kind, "fault": fault.strip(), "s": seconds, "peak": peak}


def work_off(numbers: Iterator[int], seed: int) -> None:
    """Run inputs in this process, a line of JSON before and after each; memory is bounded from here on."""
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(PHOTO)
    watch = Watch()
    try:
        for number in range(
            0, 200, 3
        ):  # loads what is loaded late: libraries are no input's memory, nor files that it opens
            run_one(WARM + number, seed, watch)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in numbers:
            print(json.dumps({"start": number}), flush=True)
            print(json.dumps({"number": number, **run_one(number, seed, watch)}), flush=True)
    finally:
        PHOTO.unlink()


WARM = 1_000_000
"""Numbers of inputs that only warm up."""


@contextmanager
def worker(start: int, stop: int, step: int, seed: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "benchmarks.fuzz", "--worker", f"{start}:{stop}:{step}", "--seed", str(seed)]
    env = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    with (
        log.open("w") as errors,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=env) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def results(start: int, stop: int, step: int, seed: int, log: Path) -> Iterator[dict[str, Any]]:
    """The results of every `step`-th input; a worker that died is a fault of its input, and another goes on."""
    while start < stop:
        at = -1
        with worker(start, stop, step, seed, log) as process:
            assert process.stdout
            for line in process.stdout:
                found = json.loads(line)
                if "start" in found:
                    at = found["start"]
                else:
                    start = found["number"] + step
                    yield found
            code = process.wait()
        if start < stop:
            if at < 0:
                raise SystemExit(f"the worker ended with {code}:\n{log.read_text()[-4000:]}")
            fault = f"the process ended with {code} (a hang, or out of memory):\n{log.read_text()[-4000:]}"
            yield {"number": at, "kind": make(at, seed)[0], "fault": fault, "s": 0.0, "peak": 0}
            start = at + step


def keep(found: dict[str, Any], seed: int, folder: Path) -> None:
    """Write an input with a fault to `folder`, and what was seen."""
    place = folder / f"{found['kind']}-{found['number']}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name, content in make(found["number"], seed)[1].items():
        (place / name).write_bytes(content)
    (place / "fault.txt").write_text(f"seed {seed}, --only {found['number']}\n{found['fault']}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--quick", action="store_true", help="64 inputs in one process")
    parser.add_argument("--only", type=int, help="the number of one input")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.worker:
        return work_off(iter(range(*map(int, wanted.worker.split(":")))), wanted.seed)
    from concurrent.futures import ThreadPoolExecutor

    if wanted.quick:
        wanted.count, wanted.jobs = 64, 1
    first, count = (0, wanted.count) if wanted.only is None else (wanted.only, 1)
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    longest, peak, began = (0.0, 0), (0, 0), time.monotonic()

    def one_job(job: int, logs: Path) -> None:
        nonlocal longest, peak
        for found in results(first + job, first + count, wanted.jobs, wanted.seed, logs / f"{job}.log"):
            counts[found["kind"]] += 1
            longest, peak = max(longest, (found["s"], found["number"])), max(peak, (found["peak"], found["number"]))
            if found["fault"]:
                faults[found["kind"]] += 1
                keep(found, wanted.seed, wanted.keep)
                print(f"{found['kind']} {found['number']}: {found['fault'].splitlines()[0][:150]}", flush=True)

    with tempfile.TemporaryDirectory() as logs, ThreadPoolExecutor(wanted.jobs) as pool:
        for job in [pool.submit(one_job, job, Path(logs)) for job in range(min(wanted.jobs, count))]:
            job.result()
    print(f"seed {wanted.seed}: " + ", ".join(f"{kind} {counts[kind]:,}" for kind in counts))
    print(f"{sum(counts.values()):,} inputs in {time.monotonic() - began:.0f} s, {sum(faults.values())} with a fault")
    print(f"longest: {longest[0]:.1f} s of processor time (input {longest[1]})")
    print(f"most memory: {peak[0] >> 20:,} MiB with the loaded libraries (input {peak[1]})")
    if faults:
        raise SystemExit(f"kept in {wanted.keep}")


if __name__ == "__main__":
    main()
