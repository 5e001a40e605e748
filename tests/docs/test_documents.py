"""README and docs are true in what can be checked by machine: links, commands, flags, settings, files."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
from typer.main import get_command

from afmrl_cli.cli.app import COMMANDS, app
from afmrl_cli.errors import UsageError
from afmrl_cli.sources import load_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_lines(page: Path) -> list[str]:
    """Lines of fenced blocks and of indented blocks, and what stands between backticks."""
    text = page.read_text("utf-8")
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line.strip() for block in fenced for line in block.splitlines()]
    lines += [line.strip() for line in rest.splitlines() if line.startswith("    ")]
    return lines + re.findall(r"`([^`\n]+)`", rest)


def afmrl_commands(page: Path) -> list[list[str]]:
    """Every `afmrl ...` on the page, split into words; comments and what follows a pipe or && left off."""
    found = []
    for line in code_lines(page):
        for part in re.split(r"&&|\||;", line.split(" #")[0]):
            part = part.strip().removeprefix("$ ")
            part = re.sub(r"^([A-Z_]+=\S+\s+)+", "", part)
            if re.match(r"afmrl( |$)", part) and "..." not in part and "`" not in part:
                found.append(shlex.split(part))
    return found


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`: the page's headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        target, _, anchor = link.partition("#")
        if not target.startswith(("http://", "https://")):
            place = page.parent / target if target else page
            assert place.exists(), f"{named(page)} links to {target}"
            assert not anchor or anchor in anchors(place), f"{named(page)} links to {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
            waiting += [page.parent / target for target in targets if "://" not in target]
    assert {page.resolve() for page in PAGES} <= reached


def test_pages_that_the_program_names_are_there() -> None:
    for room in ("src", "benchmarks", "tests"):
        for file in (ROOT / room).rglob("*.py"):
            for name in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text("utf-8")):
                assert (ROOT / name).is_file(), f"{named(file)} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_flags_exist(page: Path) -> None:
    program = cast(Any, get_command(app))
    for words in afmrl_commands(page):
        if len(words) < 2 or words[1].startswith("-"):
            continue
        assert words[1] in COMMANDS, f"{named(page)}: {' '.join(words)}"
        _, command, _ = program.resolve_command(None, [words[1]])
        if hasattr(command, "commands") and len(words) > 2:  # a group: `afmrl checkpoints list`
            assert words[2] in command.commands, f"{named(page)}: {' '.join(words)}"
            command = command.commands[words[2]]
        flags = {flag for parameter in command.params for flag in parameter.opts + parameter.secondary_opts}
        used = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
        assert used <= flags | {"-h", "--help"}, f"{named(page)}: {' '.join(words)}: {used - flags}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_settings_exist(page: Path) -> None:
    for words in afmrl_commands(page):
        for flag, pair in itertools.pairwise(words):
            if flag == "--set":
                key, _, value = pair.partition("=")
                try:
                    load_settings(None, {key: value}, environment={})
                except UsageError as error:
                    pytest.fail(f"{named(page)}: {pair}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_toml_blocks_are_settings(page: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        (tmp_path / "afmrl.toml").write_text(block, "utf-8")
        load_settings(tmp_path, environment={})


def test_every_command_has_a_page_and_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in COMMANDS:
        assert f"`afmrl {name}`" in readme, name
        page = "settings" if name == "config" else name
        assert (ROOT / "docs" / f"{page}.md").is_file()


def test_the_map_names_every_file_by_its_whole_path() -> None:
    """docs/architecture.md names each file of src/afmrl_cli once, but those that are called as their command is."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = text.split("## Rooms")[1].split("Arrows point")[0]
    on_map = re.findall(r"^    ([a-z_0-9/]+\.py) ", rooms, re.M)
    source = ROOT / "src" / "afmrl_cli"
    commands = {f"cli/{name.replace('-', '_')}.py" for name in COMMANDS}
    files = (path.relative_to(source).as_posix() for path in source.rglob("*.py") if not path.name.startswith("__"))
    present = set(files) - commands
    assert set(on_map) == present, f"not on the map: {present - set(on_map)}; not there: {set(on_map) - present}"
    assert len(on_map) == len(present), f"named twice: {[path for path in on_map if on_map.count(path) > 1]}"
    folders = re.findall(r"^    ([a-z_0-9/]+/) ", rooms, re.M)
    assert [folder for folder in folders if not (source / folder).is_dir()] == []


def test_what_passes_between_the_rooms_stands_where_the_page_says() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8").split("## What passes")[1]
    rows = re.findall(r"^\| `(\w+)` \| `([\w/]+\.py)` \|", text, re.M)
    assert len(rows) > 20
    for name, file in rows:
        source = (ROOT / "src" / "afmrl_cli" / file).read_text("utf-8")
        assert re.search(rf"^(class|def) {name}\b", source, re.M), f"no {name} in {file}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_benchmarks_that_a_page_names_are_there(page: Path) -> None:
    for module in re.findall(r"python -m (benchmarks|nano_training)\.(\w+)", page.read_text("utf-8")):
        assert ROOT.joinpath(*module).with_suffix(".py").is_file(), f"{named(page)}: {'.'.join(module)}"


def test_the_findings_repeat_what_the_lab_printed() -> None:
    numbers = {page.name: set(re.findall(r"\b0\.\d{3}\b", page.read_text("utf-8"))) for page in PAGES}
    lab = set().union(*(numbers[page.name] for page in (ROOT / "docs" / "lab").glob("*.md")))
    assert numbers["findings.md"] and numbers["findings.md"] <= lab
