from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afmrl_cli.catalog.codes import is_gtin
from afmrl_cli.cli.app import app
from afmrl_cli.sources import load_settings
from tests.catalog.shop import read, write

DATA = Path(__file__).parents[1] / "data"


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["init", *words])
    assert done.exit_code == code, done.output
    return done.output


def proposed(folder: Path) -> dict:
    return tomllib.loads((folder / "afmrl.toml").read_text("utf-8"))


@pytest.mark.parametrize("name", ["shopify.csv", "shopify_2025.csv", "woocommerce.csv", "google.tsv", "google.xml"])
def test_the_proposal_reads_the_catalog_as_it_was_read_without(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, (DATA / name).read_bytes())
    assert f'path = "{name}"' in run(str(tmp_path), "--yes")
    settings = load_settings(tmp_path, environment={}).catalog
    assert settings.path == name
    assert read(file, columns=settings.columns.model_dump())[0] == read(file)[0]


def test_columns_that_only_their_cells_betray(tmp_path: Path) -> None:
    rows = [
        f"X{i};https://cdn.example.com/{i}.jpg;400638133393{1 if i < 9 else 0};Mode > Damen;Kleid aus Leinen Nr {i};"
        f"{'Ein weiches Kleid. ' * 8}{i};rot\n"
        for i in range(9)
    ]
    file = write(tmp_path / "daten.csv", "a;b;c;d;e;f;Farbe\n" + "".join(rows))
    output = run(str(tmp_path), "--yes")
    columns = proposed(tmp_path)["catalog"]["columns"]
    assert columns == {
        "id": ["a"],
        "title": ["e"],
        "description": ["f"],
        "category": ["d"],
        "image": ["b"],
        "product_id": ["c"],
    }
    assert "German" in output and '"Kleid aus Leinen' not in output
    products, _ = read(file, columns=columns)
    assert products[3].title == "Kleid aus Leinen Nr 3" and products[3].given == {"Farbe": "rot"}


def test_a_guessed_encoding_is_pinned_and_the_schema_is_there_to_uncomment(tmp_path: Path) -> None:
    rows = "".join(
        f"{i},Röd kjol i bomull med fickor och knappar {i},{'blå' if i % 2 else 'grön'},S|M\n" for i in range(6)
    )
    write(tmp_path / "catalog.csv", ("id,title,Färg,Storlek\n" + rows).encode("cp1252"))
    run(str(tmp_path), "--yes")
    text = (tmp_path / "afmrl.toml").read_text("utf-8")
    assert 'encoding = "cp1252"' in text
    assert '# language = "Swedish"' in text
    file = tmp_path / "afmrl.toml"
    file.write_text(text.replace("# [", "[").replace("# values", "values"), "utf-8")
    keys = load_settings(tmp_path, environment={}).attributes.keys
    assert keys["färg"].values == ["grön", "blå"] and keys["storlek"].values == ["S", "M"]


def test_nothing_is_written_unasked_or_over_another_file(tmp_path: Path) -> None:
    write(tmp_path / "catalog.csv", "id,title\n1,a\n")
    assert "nothing written" in run(str(tmp_path)) and not (tmp_path / "afmrl.toml").exists()
    content = json.loads(CliRunner().invoke(app, ["init", str(tmp_path), "--json"]).stdout)
    assert content["schema"] == "afmrl.init/1" and content["written"] is False
    write(tmp_path / "afmrl.toml", "# mine\n")
    assert "--force replaces it" in run(str(tmp_path), "--yes", code=2)
    assert (tmp_path / "afmrl.toml").read_text() == "# mine\n"
    run(str(tmp_path), "--yes", "--force")
    assert proposed(tmp_path)["catalog"]["path"] == "catalog.csv"


@pytest.mark.parametrize(("answer", "written"), [(b"y\n", True), (b"n\n", False)])
def test_on_a_terminal_it_asks(answer: bytes, written: bool, tmp_path: Path) -> None:
    write(tmp_path / "catalog.csv", "id,title\n1,a\n")
    main, side = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "afmrl_cli", "init", str(tmp_path)], stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    os.write(main, answer)
    shown = b""
    while done.poll() is None or b"afmrl.toml" not in shown:
        try:
            shown += os.read(main, 4096)
        except OSError:  # the other side is closed
            break
    assert done.wait(60) == (0 if written else done.returncode)
    assert b"Write this to afmrl.toml?" in shown and (tmp_path / "afmrl.toml").exists() == written


def test_hostile_names_stay_comments(tmp_path: Path) -> None:
    header = 'id,title,"a\n[model]\npreset = ""paper""\x7f","b""\\u0000"\n'
    write(tmp_path / "catalog.csv", header + "".join(f'{i},t {i},"x\n[embed]",y\n' for i in range(4)))
    run(str(tmp_path), "--yes")
    assert proposed(tmp_path)["model"] == {} and "embed" not in proposed(tmp_path)


def test_what_is_no_catalog(tmp_path: Path) -> None:
    assert "no catalog here" in run(str(tmp_path), code=3)
    assert "no such file or folder" in run(str(tmp_path / "gone"), code=3)
    write(tmp_path / "notes.csv", "nothing\nfor\nnobody at all\n")
    assert "no id column" in run(str(tmp_path), code=3)


def test_check_digits() -> None:
    assert is_gtin("4006381333931") and is_gtin("73513537") and is_gtin("036000291452")
    assert not is_gtin("4006381333930") and not is_gtin("12345") and not is_gtin("٤٠٠٦٣٨١٣٣٣٩٣١")
