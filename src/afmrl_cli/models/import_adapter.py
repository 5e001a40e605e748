"""Taking in an adapter that other programs trained: which base it is for, and the checkpoint that it becomes."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..listener import Listener
from ..settings import ModelSettings
from ..store.checkpoints import EMBED_TEMPLATE, QUERY_WEIGHTS, REQUIRED, WEIGHTS, Checkpoints, Manifest, Role
from ..store.files import hash_file
from ..store.strict import ForeignAdapterConfig
from ..store.transfer import find_equal
from .foreign_adapter import CONFIG, ForeignAdapter, fit, read_foreign_adapter, write_adapter
from .licence import warn_of_licence
from .presets import Base, base_name, resolve_base
from .processor import load_processor
from .templates import PLAIN, fit_template, template_of
from .weights import find_snapshot

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SNAPSHOT = re.compile(r"models--[^/]*?--([^/]+)/snapshots/[^/]+$")
QUANTISED = re.compile(r"(-unsloth)?-bnb-4bit$")
"""What the names of copies in 4 bits end with; an adapter that was trained on one is for the model itself."""


@dataclass(frozen=True)
class Imported:
    """The checkpoint, whether it was there before, and how many of its `tensors` were renamed."""

    manifest: Manifest
    was_here: bool
    tensors: int
    renamed: int


def import_adapter(
    folder: Path, role: Role, settings: ModelSettings, checkpoints: Checkpoints, listener: Listener, name: str = ""
) -> Imported:
    """Put the adapter in `folder`, as PEFT's save_pretrained writes it, into the store for `role`; the one that is
    equal, where that is there already. An embedder keeps the template that `settings` say, or its base's. Call it
    under the store's lock.

    Raises ModelError, and stores nothing, when the adapter is for another base, is not understood to the last tensor,
    or the template does not fit the base.
    """
    adapter = read_foreign_adapter(folder)
    if second := next((file for file in (QUERY_WEIGHTS, f"query/{WEIGHTS}") if (folder / file).is_file()), None):
        listener.note(f"{folder / second} is not taken in: two-sided checkpoints come by `export --to afmrl`")
    warn_of_licence(folder.absolute().name, folder, listener)
    base = base_of(adapter, settings, role, listener)
    fitted = fit(adapter, base)
    template, own = PLAIN, {}
    if role == "embedder":
        template = template_of(settings.embed_template, base.name, base.folder, None)
        fit_template(template, load_processor(base), base.name)
        own = {EMBED_TEMPLATE: template.name}
    about = {
        "origin": "imported",
        "name": folder.absolute().name[:200],
        "source": adapter.source,
        "tensors": len(fitted.tensors),
        "renamed": fitted.renamed,
        "dora": adapter.config.use_dora,
    }
    with tempfile.TemporaryDirectory() as place:
        written = Path(place)
        write_adapter(fitted, base, written)
        files = {file: hash_file(written / file) for file in REQUIRED}
        before = find_equal(checkpoints.list(), role, base.revision, files, template.name)
        manifest = before or checkpoints.add(
            written, Manifest(role, base.name, base.revision, name, settings={"imported": about, **own})
        )
    return Imported(manifest, before is not None, len(fitted.tensors), fitted.renamed)


def base_of(adapter: ForeignAdapter, settings: ModelSettings, role: Role, listener: Listener) -> Base:
    """Return the base that the adapter is for: the settings' own or, where they name none, the hub model that the
    adapter names, if it is on this disk. ModelError when the adapter names another one.
    """
    config, file = adapter.config, adapter.folder / CONFIG
    named = config.base_model_name_or_path or ""
    chosen = settings.embedder if role == "embedder" else settings.generator
    own = base_name(settings, role)
    if named and not chosen and plain_name(named) != plain_name(own):
        if HUB_NAME.fullmatch(named) and find_snapshot(named) is not None:
            listener.note(f"trained on {named}: set model.{role} = {named!r} to use it")
            return resolve_base(settings.model_copy(update={role: named, f"{role}_revision": ""}), role, listener)
    elif not named:
        listener.note(f"{file} names no base: its tensors fit {own} in name and size, or are refused")
    base = resolve_base(settings, role, listener)
    if named and not _same(named, config, base, settings, role):
        raise ModelError(
            f"{file}: trained on {named[:200]}, here the {role} is {base.name}",
            f"set model.{role} to the base it was trained on, or, where it is the same model under another name, "
            f"base_model_name_or_path in {CONFIG} to {base.name}",
        )
    return base


def _same(named: str, config: ForeignAdapterConfig, base: Base, settings: ModelSettings, role: Role) -> bool:
    """Tell whether the adapter's base is `base`: by revision where both say one, by folder where it is on this disk,
    else by its name without the account or folder before it.
    """
    revision = config.revision or ""
    if _comparable(revision, base.revision):
        return revision == base.revision
    there = Path(named)
    if (there / "config.json").is_file():
        try:
            other = resolve_base(settings.model_copy(update={role: named}), role)
        except ModelError:
            return False
        return other.folder.resolve() == base.folder.resolve() or other.revision == base.revision
    return plain_name(named) == plain_name(base.name)


def _comparable(first: str, second: str) -> bool:
    """Tell whether two revisions are of one kind: fingerprints of files, or commits of the hub."""
    return any(all(re.fullmatch(kind, each) for each in (first, second)) for kind in (r"files-\w+", r"[0-9a-f]{40}"))


def plain_name(name: str) -> str:
    """Return a model's name without the account or folder before it, nor what names of copies in 4 bits end with."""
    path = name.replace("\\", "/").rstrip("/")
    found = SNAPSHOT.search(path)
    return QUANTISED.sub("", (found[1] if found else path.rpartition("/")[2]).lower())
