"""`afmrl attributes` as a person runs it; processes of their own where a kill or an import matters."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.store.lock import writer_lock
from tests.attributes.shop import answer, make_shop, stored, texts
from tests.chat_server import ChatServer, Reply, chat_server


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.script = answer
        yield running


def words(server: ChatServer, *more: str) -> list[str]:
    return ["attributes", "--endpoint", server.url, "--model", "m", "--set", "attributes.retries=0", *more]


def run(server: ChatServer, root: Path, *more: str) -> Result:
    return CliRunner().invoke(app, words(server, str(root), *more))


def test_the_whole_path(server, tmp_path, monkeypatch):
    make_shop(tmp_path)
    done = run(server, tmp_path, "--dry-run")
    assert done.exit_code == 0 and not server.requests
    assert "12" in done.stdout
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words(server, "--sample", "2"))
    assert done.exit_code == 0, done.output
    assert len(server.requests) == 2
    done = run(server, tmp_path, "--out", str(tmp_path / "attributes.csv"), "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == "afmrl.attributes/1"
    assert (document["products"], document["generated"], document["skipped"]) == (12, 10, 2)
    assert document["valid_share"] == 1.0
    assert document["out"]["rows"] == 12
    with (tmp_path / "attributes.csv").open(newline="") as file:
        assert {row["attr_color"] for row in csv.DictReader(file)} <= {"navy", "red", "green"}
    done = run(server, tmp_path, "--out", str(tmp_path / "attributes.csv"))
    assert "will be replaced" in done.stderr
    assert len(server.requests) == 12
    assert json.loads(run(server, tmp_path, "--dry-run", "--json", "--force").stdout)["needed"] == 12
    assert json.loads(run(server, tmp_path, "--dry-run", "--json").stdout)["needed"] == 0


def test_views_are_counted_and_requested_once(server, tmp_path):
    """Four listings of a photo and a text each: the whole, the photo alone and the text alone are three views."""
    make_shop(tmp_path, 4)
    views = ("--views", "listing,photos,text")
    assert json.loads(run(server, tmp_path, *views, "--dry-run", "--json").stdout) | {"generator": ""} == {
        "schema": "afmrl.attributes/1", "generator": "", "products": 4, "views": 12, "needed": 12,
    }  # fmt: skip
    run(server, tmp_path)
    done = json.loads(run(server, tmp_path, *views, "--json").stdout)
    assert (done["products"], done["views"], done["generated"], done["skipped"]) == (4, 12, 8, 4)
    assert len(server.requests) == 12
    assert json.loads(run(server, tmp_path, *views, "--dry-run", "--json").stdout)["needed"] == 0
    shown = " ".join(run(server, tmp_path, *views).stdout.split())
    assert "products views generated done before valid views/s" in shown
    # A listing's export is that of the listing, whatever else was described.
    assert run(server, tmp_path, *views, "--out", str(tmp_path / "out.csv")).exit_code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["sku0", "sku1", "sku2", "sku3"]
    done = run(server, tmp_path, "--views", "photo")
    assert done.exit_code == 2 and "'photo' is no view" in done.stderr


def test_what_the_evaluation_asks_with_is_described_by_the_view_queries(server, tmp_path):
    """`queries`: those of queries.jsonl, of all splits; `queries:text`: titles that ask. Each is asked about once."""
    make_shop(tmp_path, 4)
    lines = [{"qid": f"q{i}", "text": f"navy thing {i % 2}"} for i in range(3)]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "qrels.trec").write_text("".join(f"q{i} 0 sku{i} 1\n" for i in range(3)))
    views = ("--views", "listing,queries")
    content = json.loads(run(server, tmp_path, *views, "--dry-run", "--json").stdout)
    assert (content["products"], content["views"], content["needed"]) == (4, 7, 6)
    done = json.loads(run(server, tmp_path, *views, "--json").stdout)
    assert (done["views"], done["generated"], len(server.requests)) == (7, 7, 6)
    assert json.loads(run(server, tmp_path, *views, "--dry-run", "--json").stdout)["needed"] == 0
    titles = json.loads(run(server, tmp_path, "--views", "listing,queries:text", "--dry-run", "--json").stdout)
    assert (titles["views"], titles["needed"]) == (8, 4)
    few = run(server, tmp_path, *views, "--sample", "2", "--dry-run", "--json")
    assert "the queries are left out" in few.stderr and json.loads(few.stdout)["views"] == 2
    wrong = run(server, tmp_path, "--views", "queries:title", "--dry-run")
    assert wrong.exit_code == 2 and "'queries:title' is no view" in wrong.stderr


def test_the_earlier_key_for_photos_is_taken_for_both_models(server, tmp_path):
    make_shop(tmp_path, 2)
    (tmp_path / "afmrl.toml").write_text("[model]\nmax_images = 1\n")
    done = run(server, tmp_path, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "model.max_images is taken for model.generator_images and model.embedder_images" in " ".join(
        done.stderr.split()
    )
    content = json.loads(CliRunner().invoke(app, ["config", str(tmp_path), "--json"]).stdout)
    assert (content["settings"]["model"]["generator_images"], content["settings"]["model"]["embedder_images"]) == (1, 1)
    assert content["origins"]["model.embedder_images"] == "afmrl.toml"


def test_a_store_without_views_is_described_anew_and_shown_until_then(server, tmp_path):
    folder = make_shop(tmp_path, 3)
    run(server, tmp_path)
    connection = sqlite3.connect(folder.database)
    connection.execute("UPDATE attributes SET viewed = 0, text = 'color: old', crc32 = NULL")
    connection.commit()
    connection.close()
    assert json.loads(run(server, tmp_path, "--dry-run", "--json").stdout)["needed"] == 3
    assert {row.text for row in stored(folder).values()} == {"color: old"}
    assert json.loads(run(server, tmp_path, "--json").stdout)["generated"] == 3
    assert all(row.viewed and row.text != "color: old" for row in stored(folder).values())


def test_failures_are_shown_and_retried_on_demand(server, tmp_path):
    make_shop(tmp_path, 4)
    server.script = lambda number, body: Reply(text="[red]a nice item[/red]")
    done = run(server, tmp_path)
    assert done.exit_code == 0
    assert "unparsable" in done.stdout and "[red]a nice item" in done.stdout
    server.script = answer
    assert json.loads(run(server, tmp_path, "--json").stdout)["failures"] == {"unparsable": 4}
    assert json.loads(run(server, tmp_path, "--json", "--retry-failed").stdout)["failures"] == {}


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--limit", "1", "--sample", "1"], 2, "exclude each other"),
        (["--out", "x.xlsx"], 2, "must end in"),
        (["--out", "catalog.csv"], 2, "own file"),
        (["--endpoint", "nowhere"], 2, "not an http"),
        (["--endpoint", ""], 2, "no endpoint"),
        (["--endpoint", "http://127.0.0.1:9"], 4, "can't connect"),
        (["--batch-size", "-1"], 2, "--batch-size: must be 0 or more (got '-1')"),
        (["--preset", "nanoo"], 2, "'auto', 'nano', 'light', 'qwen3', 'qwen3.5' or 'paper'"),
        (["--set", "attributes.template=no.txt"], 2, "No such file"),
        (["--limit", "0"], 2, "limit"),
    ],
)
def test_usage(server, tmp_path, monkeypatch, more, code, message):
    make_shop(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words(server, *more))
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert not server.requests


def test_the_key_is_sent_and_neither_stored_nor_shown(server, tmp_path, monkeypatch):
    key = "sk-not-a-real-key-0123456789"
    monkeypatch.setenv("AFMRL_API_KEY", key)
    make_shop(tmp_path, 2)
    done = run(server, tmp_path, "-v", "--json")
    assert done.exit_code == 0
    assert server.headers[0]["authorization"] == f"Bearer {key}"
    assert key not in done.output
    for file in (tmp_path / ".afmrl").rglob("*"):
        assert file.is_dir() or key.encode() not in file.read_bytes()
    server.script = lambda number, body: Reply(status=401, body=f"bad key {key}".encode())
    done = run(server, tmp_path, "--force")
    assert done.exit_code == 4
    assert "AFMRL_API_KEY" in done.stderr and key not in done.output


def test_a_warning_before_a_key_goes_over_plain_http(server, tmp_path, monkeypatch):
    monkeypatch.setenv("AFMRL_API_KEY", "k")
    make_shop(tmp_path, 1)
    done = run(server, tmp_path, "--endpoint", "http://shop.invalid/v1", "--dry-run")
    assert "plain http" in done.stderr
    assert "plain http" not in run(server, tmp_path, "--dry-run").stderr


def test_one_writer_at_a_time(server, tmp_path):
    folder = make_shop(tmp_path, 1)
    with writer_lock(folder.store, "another command"):
        done = run(server, tmp_path)
    assert done.exit_code == 3
    assert "another command" in done.stderr


def process(server: ChatServer, root: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "afmrl_cli", *words(server, str(root), "--batch-size", "2", *more)]
    # A job started in the background ignores SIGINT and so would what it starts: put it back to what a person has.
    return subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT])
def test_killed_or_interrupted_and_started_again(server, tmp_path, how):
    folder, whole = make_shop(tmp_path / "a"), make_shop(tmp_path / "b")
    assert run(server, whole.root).exit_code == 0
    server.requests.clear()

    def slowly(number, body):
        reply = answer(number, body)
        reply.delay = 1.0 if number >= 4 else 0.0
        return reply

    server.script = slowly
    running = process(server, folder.root)
    deadline = time.monotonic() + 300
    while len(server.requests) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(how)
    _, stderr = running.communicate(timeout=120)
    assert running.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert "Traceback" not in stderr
    done_before = len(stored(folder))
    assert 4 <= done_before < 12
    server.script = answer
    server.requests.clear()
    done = run(server, folder.root, "--json", "--batch-size", "2")
    assert json.loads(done.stdout)["skipped"] == done_before
    assert len(server.requests) == 12 - done_before
    assert texts(folder) == texts(whole)


def test_a_run_with_nothing_to_do_imports_no_model(server, tmp_path):
    make_shop(tmp_path, 3)
    assert run(server, tmp_path).exit_code == 0
    program = (
        "import sys\n"
        "from afmrl_cli.cli.app import app\n"
        f"try: app({words(server, str(tmp_path))!r})\n"
        "except SystemExit: pass\n"
        "print('HEAVY', [n for n in ('torch', 'transformers', 'pandas', 'pyarrow', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "done before" in done.stdout
    # The endpoint's module is imported for its id and needs PIL; a local model's would not even be imported.
    assert "HEAVY ['PIL']" in done.stdout or "HEAVY []" in done.stdout, done.stdout + done.stderr
