"""What a folder's afmrl.toml may not do by itself: send a key, photos and texts away, open doors, fetch models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from afmrl_cli.cli.app import app
from afmrl_cli.errors import UsageError
from afmrl_cli.models.endpoint import Endpoint
from afmrl_cli.own import own_file, own_settings
from afmrl_cli.settings import Settings
from afmrl_cli.sources import load_settings
from tests.attributes.shop import answer, make_shop
from tests.chat_server import ChatServer, chat_server


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.script = answer
        yield running


def shop(tmp_path: Path, *lines: str) -> Path:
    root = tmp_path / "shop"
    make_shop(root, 3)
    (root / "afmrl.toml").write_text("\n".join(lines) + "\n")
    return root


def asks(tmp_path: Path, server: ChatServer) -> Path:
    """A shop whose own settings name the server."""
    return shop(tmp_path, "[attributes]", f'endpoint = "{server.url}"', 'endpoint_model = "m"', "retries = 0")


def own(*lines: str) -> None:
    own_file().parent.mkdir(parents=True, exist_ok=True)
    own_file().write_text("\n".join(lines) + "\n")


def run(*words: object) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def said(done: Result) -> str:
    return " ".join(done.stderr.split())


def keys(server: ChatServer) -> set[str]:
    return {{name.lower(): value for name, value in each.items()}.get("authorization", "") for each in server.headers}


@pytest.mark.parametrize("command", [["attributes"], ["attributes", "--quiet"]])
def test_an_endpoint_that_only_the_folder_names_gets_no_request(tmp_path, server, monkeypatch, command) -> None:
    monkeypatch.setenv("AFMRL_API_KEY", "secret-key")
    done = run(*command, asks(tmp_path, server))
    assert done.exit_code == 2 and not server.requests
    assert server.url in said(done) and "allowed_hosts" in said(done) and "secret-key" not in done.output


def test_what_sends_no_request_works_where_the_folder_names_an_endpoint(tmp_path, server) -> None:
    root = asks(tmp_path, server)
    assert run("check", root).exit_code == 0
    assert run("attributes", root, "--dry-run").exit_code == 0
    assert not server.requests


@pytest.mark.parametrize("word", ["flag", "set", "variable"])
def test_the_users_own_word_sends_the_key_and_tells_the_address(tmp_path, server, monkeypatch, word) -> None:
    monkeypatch.setenv("AFMRL_API_KEY", "secret-key")
    words = {"flag": ["--endpoint", server.url], "set": ["--set", f"attributes.endpoint={server.url}"]}
    if word == "variable":
        monkeypatch.setenv("AFMRL_ATTRIBUTES_ENDPOINT", server.url)
    done = run("attributes", asks(tmp_path, server), *words.get(word, []))
    assert done.exit_code == 0, done.output
    assert server.url in said(done) and keys(server) == {"Bearer secret-key"}


def test_an_allowed_host_gets_requests_without_the_key_until_the_key_is_said_to_be_for_it(
    tmp_path, server, monkeypatch
) -> None:
    monkeypatch.setenv("AFMRL_API_KEY", "secret-key")
    root, host = asks(tmp_path, server), server.url.removeprefix("http://")
    own(f'allowed_hosts = ["{host}"]')
    done = run("attributes", root)
    assert done.exit_code == 0 and server.url in said(done) and keys(server) == {""}
    assert "without the key" in said(done)
    monkeypatch.setenv("AFMRL_API_KEY_HOST", host)
    assert run("attributes", root, "--force").exit_code == 0
    assert keys(server) == {"", "Bearer secret-key"}


def test_a_key_that_is_for_another_host_goes_nowhere_else(tmp_path, server, monkeypatch) -> None:
    monkeypatch.setenv("AFMRL_API_KEY", "secret-key")
    own('api_key_host = "api.example.com"')
    assert run("attributes", asks(tmp_path, server), "--endpoint", server.url).exit_code == 0
    assert keys(server) == {""}


@pytest.mark.parametrize(
    ("allowed", "requested", "right"),
    [
        ("127.0.0.1:9", "http://127.0.0.1:9/v1", True),
        ("api.example.com", "https://API.example.com/v1", True),
        ("api.example.com", "http://api.example.com/v1", False),  # a key over plain http
        ("api.example.com", "https://api.example.com:8443/v1", False),
        ("api.example.com", "https://api.example.com.evil.test/v1", False),
        ("api.example.com", "https://evil.test/api.example.com", False),
        ("api.example.com", "https://evil.test#api.example.com", False),
        ("127.0.0.1", "http://127.0.0.1:9/v1", False),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("", "http://127.0.0.1:9/v1", False),
    ],
)
def test_an_allowed_host_is_that_host_and_port_and_no_other(tmp_path, allowed, requested, right) -> None:
    root = shop(tmp_path, "[attributes]", f'endpoint = "{requested}"', 'endpoint_model = "m"')
    own(f'allowed_hosts = ["{allowed}"]')
    settings = load_settings(root)
    if right:
        Endpoint(settings.attributes, settings.model)
    else:
        with pytest.raises(UsageError, match="would send"):
            Endpoint(settings.attributes, settings.model)


def test_a_copy_of_the_settings_is_trusted_no_further(tmp_path) -> None:
    root = shop(tmp_path, "[attributes]", 'endpoint = "http://127.0.0.1:9"', 'endpoint_model = "m"')
    settings = load_settings(root)
    copied = settings.model_copy(update={"attributes": settings.attributes.model_copy(update={"seed": 1})})
    with pytest.raises(UsageError, match="would send"):
        Endpoint(copied.attributes, copied.model)


@pytest.mark.parametrize("key", ["allow_outside", "fetch_private"])
def test_a_folder_opens_no_door_by_itself(tmp_path, key, monkeypatch) -> None:
    root = shop(tmp_path, "[catalog]", f"{key} = true")
    done = run("check", root)
    assert done.exit_code == 2 and f"catalog.{key} = true" in said(done) and str(own_file()) in said(done)
    assert run("check", root, "--set", f"catalog.{key}=true").exit_code == 0
    monkeypatch.setenv(f"AFMRL_CATALOG_{key.upper()}", "false")
    assert run("check", root).exit_code == 0
    monkeypatch.delenv(f"AFMRL_CATALOG_{key.upper()}")
    own(f'trusted_folders = ["{tmp_path}"]')
    assert run("check", root).exit_code == 0
    own('trusted_folders = ["."]')  # is the folder that the user stands in, whoever made it
    monkeypatch.chdir(root)
    assert run("check").exit_code == 2


@pytest.mark.parametrize(
    "line",
    [
        '[sft]\nfile = "/etc/passwd"',
        '[dedupe]\nverdicts = ["../x.csv"]',
        '[triplets]\nverdicts = ["../x.csv"]',
        '[eval]\nlabels = "link.csv"',
    ],
)
def test_a_folder_names_no_file_outside_of_it(tmp_path, line) -> None:
    root = shop(tmp_path, line)
    (root / "link.csv").symlink_to("/etc/passwd")
    assert run("check", root).exit_code == 2
    own(f'trusted_folders = ["{root}"]')
    assert run("check", root).exit_code == 0


def test_no_model_is_fetched_because_a_folder_names_it(tmp_path, monkeypatch) -> None:
    def fetch(*_: object, **__: object) -> Path:
        raise AssertionError("fetched")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fetch)  # the first that it asks
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    root = shop(tmp_path, "[model]", 'embedder = "somebody/model"', 'generator = "somebody/model"')
    done = run("embed", root)
    assert done.exit_code == 2 and "somebody/model: is not on this disk, and is not fetched" in said(done)
    with pytest.raises(AssertionError, match="fetched"):  # named by the user
        CliRunner().invoke(app, ["embed", str(root), "--set", "model.embedder=some/other"], catch_exceptions=False)


def test_own_settings_that_can_not_be_used_are_reported_with_their_file(tmp_path) -> None:
    root = shop(tmp_path, "[catalog]", "allow_outside = true")
    for text in ("allowed_hosts = 3", "nonsense = 1", "[", "trusted_folders = 'x'"):
        own(text)
        done = run("check", root)
        assert done.exit_code == 2 and str(own_file()) in said(done)


def test_own_settings_lie_in_the_home_folder_and_never_where_one_stands(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ("", "shop", "."):
        monkeypatch.setenv("XDG_CONFIG_HOME", relative)
        assert own_file() == tmp_path / ".config/afmrl/afmrl.toml"
    assert own_settings().allowed_hosts == [] and Settings().attributes.foreign == frozenset()
