"""`afmrl init`: settings for a catalog, proposed from what lies in its folder."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, UsageError
from ..store.folder import SETTINGS_FILE, CatalogFolder
from .flags import Call, with_flags

if TYPE_CHECKING:
    from ..settings import Settings

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an afmrl.toml that is there.")]


@with_flags()
def init(call: Call, yes: Yes = False, force: Force = False) -> None:
    """Propose columns and settings for a catalog, and write them to afmrl.toml after showing them.

    On a terminal it asks before it writes; elsewhere it only writes with --yes.

    Example: afmrl init my-shop --yes
    """
    from ..models.auto import choose_preset
    from ..propose import propose, settings_text
    from ..sources import load_settings
    from ..store.files import writing

    folder, root = _place(call.catalog)
    file = root / SETTINGS_FILE
    if file.exists() and yes and not force:
        raise UsageError(f"{file}: is there already", "--force replaces it")
    settings = load_settings(None, call.chosen).catalog
    with call.out as out:
        found = propose(folder, root, settings)
        text = settings_text(found)
        proposed = load_settings_text(text)
        out.text(text)
        write = yes or (_may_ask(out.json_mode) and _agreed(file, force))
        if write:
            with writing(file) as target:
                target.write_text(text, "utf-8")
        out.document("afmrl.init/1", {"catalog": found.file, "settings": text, "path": file, "written": write})
        if line := choose_preset(proposed, CatalogFolder(found.file)).line:
            out.note(line)
        if write:
            out.text(f"written to {file}; next: afmrl check")
        else:
            out.note(f"nothing written: --yes writes it to {file}")


def load_settings_text(text: str) -> Settings:
    """Read the proposal as settings. Raises if it is no valid settings file: then it must not be written."""
    from ..settings import Settings

    return Settings.model_validate(tomllib.loads(text))


def _place(catalog: Path | None) -> tuple[CatalogFolder | None, Path]:
    if catalog is not None and catalog.is_file():
        folder = CatalogFolder(catalog.resolve())
        return folder, folder.root
    root = (catalog or Path.cwd()).resolve()
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder", "give the catalog's file or folder")
    return None, root


def _may_ask(json_mode: bool) -> bool:
    return not json_mode and sys.stdin.isatty() and sys.stdout.isatty()


def _agreed(file: Path, force: bool) -> bool:
    if file.exists() and not force:
        return typer.confirm(f"{file.name} is there already. Replace it?", default=False, err=True)
    return typer.confirm(f"Write this to {file.name}?", default=True, err=True)
