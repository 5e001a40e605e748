"""The command-line frame, from outside: help, imports, settings, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from afmrl_cli import __version__
from afmrl_cli.__main__ import WAITING
from afmrl_cli.cli.app import COMMANDS, app
from afmrl_cli.cli.errors import guarded
from afmrl_cli.errors import AfmrlError, CheckFailed, DataError, ModelError, OutOfMemory, UsageError
from afmrl_cli.sources import load_settings
from tests import NANO

HEAVY = ("torch", "transformers", "pandas", "faiss", "peft", "pyarrow", "numpy", "PIL")


def run(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`afmrl words` as a process of its own."""
    command = [sys.executable, "-m", "afmrl_cli", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


def test_version() -> None:
    assert run("--version").stdout.strip() == f"afmrl {__version__}"


def test_help_loads_nothing_heavy() -> None:
    """Each in a fork of one process that has imported the app and no command."""
    program = (
        "import os, sys\n"
        "from afmrl_cli.cli.app import app\n"
        f"for command in {['', *COMMANDS]!r}:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try: app([*command.split(), '--help'])\n"
        "        except SystemExit as end: code = end.code\n"
        f"        heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "        print('HELP', command or 'afmrl', code, heavy, flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith("HELP")]
    assert lines == [f"HELP {command} 0 []" for command in ["afmrl", *COMMANDS]], done.stderr


def test_help_loads_no_command_and_none_of_the_rooms() -> None:
    program = (
        "import sys\n"
        "from afmrl_cli.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', sorted(name for name in sys.modules if name.startswith(('afmrl_cli.', 'pydantic'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "LOADED ['afmrl_cli.cli', 'afmrl_cli.cli.app']" in done.stdout, done.stdout[-300:] + done.stderr


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("checkpoints", "index")])
def test_each_help_has_an_example_and_json(command: str) -> None:
    text = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "300"}).stdout.split())
    assert f"afmrl {command} [OPTIONS]" in text
    assert COMMANDS[command][1] in text, "the list of commands tells what the command itself tells"
    assert "Example" in text
    assert "--json" in text


def test_help_fills_its_lines() -> None:
    """A sentence that the code breaks at 120 columns is not broken there in a terminal of 80."""
    shown = CliRunner().invoke(app, ["eval", "--help"], env={"COLUMNS": "80"}).stdout
    assert "finds its product. fine: among its variants. coarse: listings of a category." in shown


def test_no_command_shows_help() -> None:
    done = CliRunner().invoke(app, [])
    assert "Usage" in done.output
    assert done.exit_code == 2


def test_unknown_command_is_usage() -> None:
    done = run("serach")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\n1,a\n")

    def batch_size(*words: str, **environment: str) -> int:
        done = run("config", "--json", *words, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        value: int = json.loads(done.stdout)["settings"]["embed"]["batch_size"]
        return value

    assert batch_size() == 32
    (tmp_path / "afmrl.toml").write_text("[embed]\nbatch_size = 4\n")
    assert batch_size() == 4
    assert batch_size(AFMRL_EMBED_BATCH_SIZE="5") == 5
    assert batch_size("--set", "embed.batch_size=6", AFMRL_EMBED_BATCH_SIZE="5") == 6


def test_model_folders_in_the_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, elsewhere = tmp_path / "shop", tmp_path / "elsewhere"
    for folder in (shop / "models" / "ours", shop / "nano", elsewhere / "models" / "ours"):
        folder.mkdir(parents=True)
    (shop / "run.trec").write_text("")
    monkeypatch.chdir(elsewhere)
    systems = '["text:models/ours", "clip:openai/clip", "run:run.trec", "bm25"]'
    models = 'generator = "nano"\nembedder = "models/ours"\n'
    (shop / "afmrl.toml").write_text(f"[model]\n{models}[eval]\nsystems = {systems}\n")
    found = load_settings(shop, environment={})
    ours = str(shop / "models" / "ours")
    assert (found.model.generator, found.model.embedder) == ("nano", ours)
    assert found.eval.systems == [f"text:{ours}", "clip:openai/clip", f"run:{shop / 'run.trec'}", "bm25"]
    # A flag means the folder where one stands, as everywhere in a shell.
    assert load_settings(shop, {"model.embedder": "models/ours"}, NANO).model.embedder == "models/ours"
    (shop / "afmrl.toml").write_text('[model]\nembedder = "Qwen/Qwen2-VL-2B-Instruct"\n')
    assert load_settings(shop, environment={}).model.embedder == "Qwen/Qwen2-VL-2B-Instruct"


@pytest.mark.parametrize(
    ("toml", "environment", "flags", "message"),
    [
        ("[embed]\nbatch_siz = 4", {}, [], "did you mean embed.batch_size?"),
        ("[embd]\nbatch_size = 4", {}, [], "did you mean embed?"),
        ("[embed]\nbatch_size = -1", {}, [], "must be 0 or more"),
        ("[split]\nvalidation = 0.5\ntest = 0.5", {}, [], "validation + test must be below 1"),
        ("[embed\n", {}, [], "not valid TOML"),
        ("", {"AFMRL_EMBED_BATCHSIZE": "1"}, [], "did you mean AFMRL_EMBED_BATCH_SIZE?"),
        ("", {}, ["--set", "model.presett=nano"], "did you mean model.preset?"),
        ("", {}, ["--set", "model.preset=nanoo"], "'auto', 'nano', 'light', 'qwen3', 'qwen3.5' or 'paper'"),
        ("", {}, ["--set", "model"], "not of the form KEY=VALUE"),
    ],
)
def test_bad_settings_name_the_key_and_the_nearest(
    tmp_path: Path, toml: str, environment: dict[str, str], flags: list[str], message: str
) -> None:
    (tmp_path / "catalog.csv").write_text("id,title\n1,a\n")
    (tmp_path / "afmrl.toml").write_text(toml)
    done = run("config", *flags, cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr


def test_config_prints_toml_that_is_read_back(tmp_path: Path) -> None:
    import tomllib

    done = run("config", "--set", 'embed.query_instruction=Find "this":', cwd=tmp_path)
    assert tomllib.loads(done.stdout)["embed"]["query_instruction"] == 'Find "this":'


def test_config_says_where_each_value_comes_from_and_freezes_no_default(tmp_path: Path) -> None:
    import tomllib

    (tmp_path / "catalog.csv").write_text("id,title\n1,a\n")
    (tmp_path / "afmrl.toml").write_text('[agcl]\nseed = 3\n[attributes.keys."neck line"]\nvalues = ["v"]\n')
    done = run("config", "--set", "embed.batch_size=7", cwd=tmp_path, AFMRL_SEARCH_K="4")
    lines = done.stdout.splitlines()
    assert "seed = 3  # afmrl.toml" in lines
    assert "batch_size = 7  # --set embed.batch_size" in lines
    assert "k = 4  # AFMRL_SEARCH_K" in lines
    assert 'values = ["v"]  # afmrl.toml' in lines
    assert "# validation =  # default: here 0.25" in lines
    assert tomllib.loads(done.stdout)["agcl"] == {"seed": 3}
    assert "# batch_size = 0  # default: here 32" in lines
    assert "# learning_rate = 0.0  # default: here 0.001" in lines
    assert '# generator = ""  # default: here nano' in lines
    other = run("config", "--set", "model.preset=qwen3", cwd=tmp_path)
    assert "# batch_size = 0  # default: here 12" in other.stdout.splitlines()
    assert "# activation_checkpointing =  # default: here true" in other.stdout.splitlines()
    (tmp_path / "afmrl.toml").write_text(done.stdout)
    again = json.loads(run("config", "--json", "--set", "model.preset=qwen3", cwd=tmp_path).stdout)["settings"]
    assert again["attributes"]["batch_size"] == 12 and again["agcl"]["seed"] == 3
    assert "clip" not in again["agcl"]  # a constant, which nobody can set


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckFailed("m", "h"), 1),
        (UsageError("m", "h"), 2),
        (DataError("m", "h"), 3),
        (ModelError("m", "h"), 4),
        (OutOfMemory("m", "h"), 5),
        (MemoryError(), 5),
        (OSError(28, "No space left on device", "x"), 3),
        (PermissionError(13, "Permission denied", "x"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failures_become_lines_and_exit_codes(error: BaseException, code: int) -> None:
    def command(json_mode: bool = False) -> None:
        raise error

    small = typer.Typer(pretty_exceptions_enable=False)
    small.command()(guarded(command))
    done = CliRunner().invoke(small, ["--json-mode"])
    assert done.exit_code == code
    if isinstance(error, CheckFailed):
        assert not done.stdout  # its command has printed the result, and --json means one document
    else:
        document = json.loads(done.stdout)
        assert document["schema"] == "afmrl.error/1"
        assert document["error"]["exit_code"] == code
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) <= 2


def test_unknown_failures_keep_their_traceback() -> None:
    def command() -> None:
        raise ZeroDivisionError

    small = typer.Typer(pretty_exceptions_enable=False)
    small.command()(guarded(command))
    assert isinstance(CliRunner().invoke(small).exception, ZeroDivisionError)


def test_debug_keeps_the_traceback_of_known_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFMRL_DEBUG", "1")

    def command() -> None:
        raise AfmrlError("m")

    small = typer.Typer(pretty_exceptions_enable=False)
    small.command()(guarded(command))
    assert isinstance(CliRunner().invoke(small).exception, AfmrlError)


def test_no_catalog_here_and_two_catalogs(tmp_path: Path) -> None:
    done = run("check", cwd=tmp_path)
    assert done.returncode == 3
    assert "no catalog here" in done.stderr
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "b.tsv").write_text("id\n1\n")
    done = run("check", cwd=tmp_path)
    assert done.returncode == 3
    assert "a.csv, b.tsv" in done.stderr


def test_shell_completion_is_there() -> None:
    done = CliRunner().invoke(app, [], prog_name="afmrl", env={"_AFMRL_COMPLETE": "source_bash"})
    assert "complete -o default -F _afmrl_completion afmrl" in done.stdout
    words = {"_AFMRL_COMPLETE": "complete_bash", "COMP_WORDS": "afmrl em", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], prog_name="afmrl", env=words).stdout.split() == ["embed"]


@pytest.mark.parametrize("words", [("embed", "--nope"), ("attributes", "--limit", "0"), ("nonsense",)])
def test_what_the_parser_refuses_is_one_json_document_too(words: tuple[str, ...]) -> None:
    done = run(*words, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == 2
    assert error["message"] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_renamed_flag_names_the_new_one() -> None:
    done = run("eval", "--ask=title", "--json")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --ask=title: is --query-fields now"
    assert json.loads(done.stdout)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, "")]
)
def test_threads_wait_without_spinning_unless_the_user_says_how(given: dict[str, str], expected: str) -> None:
    program = (
        "import os, runpy, sys; sys.argv = ['afmrl', '--version']\n"
        "try: runpy.run_module('afmrl_cli', run_name='__main__')\n"
        "except SystemExit: print(os.environ.get('OMP_WAIT_POLICY', ''))"
    )
    clean = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**clean, **given})
    assert done.stdout.splitlines() == [f"afmrl {__version__}", expected]
