"""The catalog's folder: where the retailer's file lies and where everything that the tool writes goes.

my-shop/catalog.csv, images/, afmrl.toml    the retailer's; never written to
my-shop/.afmrl/                             the tool's; deleting it loses nothing of the retailer's

A folder may come from a stranger: a link in `.afmrl` would let the tool write, delete or read somewhere else, so that
a store with one is refused as a whole (`check_store`), before anything in it is opened.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, UsageError
from .source import ADDRESS_SUFFIX, is_table_folder
from .written import written_by_afmrl

CATALOG_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx", ".xml", ADDRESS_SUFFIX)
ALSO_SUFFIXES = (".txt", ".ndjson", ".json", ".xlsm")
"""Of what may be a catalog where nothing with a catalog's suffix is."""
NO_CATALOG = ("readme", "license", "licence", "changelog", "requirements", "robots")
PACKED_SUFFIX = ".gz"
CATALOG_NAMES = ("catalog", "corpus")  # corpus.jsonl: a BEIR folder
INTERACTIONS = "interactions"
"""What customers did; no catalog where another file is there."""
STORE_NAME, KEPT_FILE = ".afmrl", "catalog"
SETTINGS_FILE = "afmrl.toml"


@dataclass(frozen=True)
class CatalogFolder:
    """A catalog file and the folder that it lies in."""

    catalog: Path

    @property
    def root(self) -> Path:
        """Return the folder that image paths are relative to."""
        return self.catalog.parent

    @property
    def store(self) -> Path:
        """Return `.afmrl`; made by the first writer (`store.files.make_folder`)."""
        return self.root / STORE_NAME

    @property
    def database(self) -> Path:
        """Return the path of attributes and what has been done."""
        return self.store / "afmrl.sqlite"

    @property
    def embeddings(self) -> Path:
        """Return the parent of one folder per embedder and way of enriching."""
        return self.store / "embeddings"

    @property
    def light(self) -> Path:
        """Return the folder of what the embedder `light` was fitted to in this catalog."""
        return self.store / "light"

    @property
    def cache(self) -> Path:
        """Return the folder of what can be computed again; anything in it may be deleted at any time."""
        return self.store / "cache"

    @property
    def checkpoints(self) -> Path:
        """Return the common checkpoint store."""
        return self.store / "checkpoints"

    @property
    def runs(self) -> Path:
        """Return the parent of one folder per command that trained or evaluated."""
        return self.store / "runs"


def find_folder(start: Path | None, configured: Callable[[Path], str] = lambda root: "") -> CatalogFolder:
    """Return the catalog that `start` means: a file, a folder, or (None) the working directory or the nearest parent of
    it that holds `afmrl.toml` or `.afmrl`.

    `configured(root)` gives `catalog.path` of that folder's settings, "" for none. Raises DataError when there is no
    catalog or more than one candidate, when the catalog is a link that leads elsewhere, or as `check_store` does.
    """
    if start is not None and (start.is_file() or is_table_folder(start)):
        return _opened(start)
    root = _root(start)
    if name := configured(root):
        file = root / name
        if Path(name).name != name:  # settings, photos and .afmrl belong to the folder that the file lies in
            raise DataError(f"catalog.path: {name[:200]} does not lie in {root}", "name a file of this folder itself")
        if name not in (path.name for path in root.iterdir() if path.is_file() or is_table_folder(path)):
            raise DataError(f"{str(file)[:400]}: no such file", f"catalog.path in {root / SETTINGS_FILE} names it")
        return _opened(file)
    check_store(root / STORE_NAME)
    found = candidates(root)
    found = [path for path in found if not is_called_interactions(path)] or found
    if kept := [path for path in found if path.name == _kept_catalog(root)]:
        found = kept
    named = [p for p in found if p.name.split(".")[0].lower() in CATALOG_NAMES]
    if len(named) == 1 or len(found) == 1:
        return _opened((named or found)[0])
    names = ", ".join(p.name for p in (named or found)[:5])
    hint = f"give one, or set catalog.path in {SETTINGS_FILE}: `afmrl init` proposes one"
    raise DataError(f"{root}: more than one catalog ({names})", hint)


def _opened(catalog: Path) -> CatalogFolder:
    """Return the folder of `catalog`, once nothing of it is a link."""
    file = catalog.resolve()
    if file.parent != catalog.parent.resolve():  # the store would be made there, and photos searched there
        raise DataError(f"{catalog}: is a link that leads to {file}", "give that file itself, or copy it here")
    folder = CatalogFolder(file)
    check_store(folder.store)
    return folder


def check_store(store: Path) -> None:
    """Raise DataError naming what is a link: the store itself or the first thing in it; or what is neither a file nor a
    folder (a pipe would never end). One walk over names; nothing is opened. A store need not exist yet."""
    if store.is_symlink():
        raise _link(store, store)
    waiting = [store] if store.is_dir() else []
    while waiting:
        # FileNotFoundError: a writer has removed it meanwhile.
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise _link(Path(entry.path), store)
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                elif not entry.is_file():
                    kind = stat.filemode(entry.stat(follow_symlinks=False).st_mode)
                    raise DataError(f"{entry.path}: is neither a file nor a folder ({kind})", "remove it")


def _link(path: Path, store: Path) -> DataError:
    there = "" if path == store else f", and nothing in {store.name} may be one"
    return DataError(f"{path}: is a link{there}", "remove it: what it leads to would be overwritten and deleted")


def is_called_interactions(path: Path) -> bool:
    """Tell whether a file is called after interactions, with a suffix of a table: interactions.csv.gz."""
    stem, _, rest = path.name.lower().removesuffix(PACKED_SUFFIX).rpartition(".")
    return stem == INTERACTIONS and f".{rest}" in CATALOG_SUFFIXES


def candidates(root: Path) -> list[Path]:
    """Return files in `root` whose names are those of catalogs, packed or not; where there are none, those that may be
    all the same. Hidden files and Excel's lock files are left out.

    Raises DataError when there are none, naming what is there instead.
    """
    there = [p for p in root.iterdir() if not p.name.startswith((".", "~$"))]
    files = sorted(p for p in there if p.is_file() or is_table_folder(p))
    written = [p for p in files if p.is_file() and written_by_afmrl(p) and p.stat().st_size]
    files = [p for p in files if p not in written]
    for suffixes in (CATALOG_SUFFIXES, ALSO_SUFFIXES):
        if found := [p for p in files if p.name.lower().removesuffix(PACKED_SUFFIX).endswith(suffixes)]:
            if suffixes is CATALOG_SUFFIXES:
                return found
            found = [p for p in found if not p.name.lower().startswith(NO_CATALOG)]
            if found:
                return found
    names = [p.name for p in files if p.name != SETTINGS_FILE]
    names += [f"{p.name} (written by afmrl)" for p in written]
    instead = f" but {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else ""
    hint = f"run afmrl inside a catalog's folder, or give the file ({', '.join(CATALOG_SUFFIXES)})"
    ends = {Path(name).suffix.lower() for name in names}
    if ends & {".zip", ".rar", ".7z", ".tar", ".tgz"}:
        hint = "unpack it, and give the folder with the table"
    elif ends & {".xls", ".xlsb", ".ods", ".numbers", ".pdf", ".doc", ".docx"}:
        hint = "save the table as XLSX or CSV (UTF-8)"
    elif ends & {".jpg", ".jpeg", ".png", ".webp", ".heic"}:
        hint = "a table is needed too: a row per product, with an id that the photos are called after"
    raise DataError(f"{root}: no catalog here{instead}", hint)


def check_output(path: Path, folder: CatalogFolder, flag: str, own: Iterable[Path | None] = ()) -> None:
    """Raise UsageError naming `flag` when a result at `path` would replace a folder or a file of the retailer's (the
    catalog, its settings, and those in `own`), or lie in the store.
    """
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder", "give a file's name")
    place = path.resolve()
    if folder.store.resolve() in place.parents:
        raise UsageError(f"{flag} {path}: lies inside {folder.store.name}", "give another place")
    for file in (folder.catalog, folder.root / SETTINGS_FILE, *own):
        if file and (place == file.resolve() or (place.exists() and file.exists() and place.samefile(file))):
            raise UsageError(f"{flag} {path}: is the retailer's own file", "give another name")
    if place.exists() and not written_by_afmrl(place):
        raise UsageError(f"{flag} {path}: is there already, and afmrl did not write it", "give another name")


def keep_catalog(folder: CatalogFolder) -> None:
    """Note in the store which file it belongs to, so that it stays the catalog when other tables come to lie beside it.

    The first that the store was made for stays noted while it is there.
    """
    kept = _kept_catalog(folder.root)
    if kept and (folder.root / kept).exists():
        return
    folder.store.mkdir(exist_ok=True)
    part = folder.store / f".{KEPT_FILE}-{os.getpid()}"
    part.write_text(folder.catalog.name, "utf-8")
    part.replace(folder.store / KEPT_FILE)


def _kept_catalog(root: Path) -> str:
    try:
        return (root / STORE_NAME / KEPT_FILE).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _root(start: Path | None) -> Path:
    if start is not None:
        if not start.is_dir():
            reason = "neither a file nor a folder" if start.exists() else "no such file or folder"
            raise DataError(f"{start}: {reason}", "give the catalog's file, such as catalog.csv")
        return start.resolve()
    here = Path.cwd().resolve()
    marked = (p for p in (here, *here.parents) if (p / SETTINGS_FILE).is_file() or (p / STORE_NAME).is_dir())
    return next(marked, here)
