"""What a model's folder says of its licence: told once, by name, where a shop may not use it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.cli.app import app
from afmrl_cli.models import licence
from afmrl_cli.models.licence import licence_of, warn_of_licence

TinyModel = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _nobody_was_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licence, "_warned", set())


class Ear:
    """Hears warnings."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        pass

    def note(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        self.heard.append(message)

    def ask(self, question: str) -> bool:
        return False


def told(folder: Path, name: str = "them/model") -> list[str]:
    ear = Ear()
    warn_of_licence(name, folder, ear)
    warn_of_licence(name, folder, ear)
    return ear.heard


CARDS = [
    ("license: apache-2.0", ""),
    ("license: cc-by-nc-4.0", "them/model: its licence (cc-by-nc-4.0) forbids commercial use"),
    ("tags:\n- a\nlicense: 'CC-BY-NC-SA-4.0' # theirs\nlanguage: en", "(CC-BY-NC-SA-4.0) forbids"),
    ("license: other\nlicense_name: qwen-research\nlicense_link: LICENSE", "(other qwen-research) forbids"),
    ("license: other\nlicense_name: their-own", "them/model: its licence is one of its own (other their-own): look up"),
    ("license: other", "one of its own (other)"),
    ("license:\n- mit\n- cc-by-nc-4.0\ntags: x", "(mit cc-by-nc-4.0) forbids"),
    ("license: [mit, cc-by-nc-4.0]", "(mit cc-by-nc-4.0) forbids"),
    ("license:", ""),
    ("license: once", ""),
    ("license: \x1b[31m nc\x1b", "(31m nc) forbids"),
]


@pytest.mark.parametrize(("head", "expected"), CARDS)
def test_a_cards_head_says_it(head: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\nlicense: cc-by-nc-4.0", "utf-8")
    said = told(tmp_path)
    assert len(said) == bool(expected) and all(expected in each for each in said), said


def test_a_licence_file_or_the_name_says_it_where_no_card_does(tmp_path: Path) -> None:
    assert told(tmp_path) == [] and licence_of("Qwen/Qwen2.5-VL-3B-Instruct", tmp_path) == "qwen-research"
    (tmp_path / "README.md").write_bytes(b"\xff no head, license: cc-by-nc-4.0")
    (tmp_path / "LICENSE").write_text("You may use it for NON-COMMERCIAL purposes only.", "utf-8")
    assert "(LICENSE: NON-COMMERCIAL) forbids" in told(tmp_path, "other")[0]
    (tmp_path / "LICENSE").unlink()
    (tmp_path / "LICENSE").mkdir()
    assert licence_of("x", tmp_path) == ""


def test_each_command_tells_it_once_and_goes_on(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model("qwen2_vl"), tmp_path / "theirs"))
    (model / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", "utf-8")
    (tmp_path / "catalog.csv").write_text("id,title\na,red shirt\nb,blue shirt\n", "utf-8")
    chosen = ["--set", f"model.embedder={model}", "--set", f"model.generator={model}", "--set", "model.device=cpu"]
    for words in (["embed", str(tmp_path)], ["doctor"], ["attributes", str(tmp_path), "--limit", "1"]):
        licence._warned.clear()
        done = CliRunner().invoke(app, [*words, *chosen])
        assert done.exit_code == 0, done.output
        assert done.stderr.replace("\n", " ").count("(cc-by-nc-4.0) forbids commercial use") == 1, done.stderr
        assert "cc-by-nc" not in done.stdout
