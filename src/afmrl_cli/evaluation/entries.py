"""Which systems stand in the table: `eval.systems` and what each name means.

bm25               BM25 over the text of the listings
bm25-attributes    BM25 over stored attribute values
colors             colour histograms of the photos
fusion             the embedder and BM25 over text, weighted as other queries say
hybrid             what `afmrl search` ranks by: vectors, words and attributes, weighted as other queries say
change-alone       composed queries: the embedder is shown their words alone
reference-alone    composed queries: it is shown their photos alone
attributes-alone   composed queries: it is shown their reference's attributes with the change, as text, alone
base               the embedder's base without its checkpoint (zero-shot); beside a vision encoder, the vision tower
                   that it began with, its tokens averaged
checkpoint:NAME    the embedder with another checkpoint, such as one trained with plain InfoNCE, or a vision encoder
clip:NAME          a CLIP or SigLIP, a folder or a hub name
text:NAME          a sentence-transformers model, a folder or a hub name
run:FILE           a TREC run that another tool wrote
reranked           the embedder's first `search.rerank` products in the reranker's order: with --rerank, not by name
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import UsageError
from ..models.backends import reads_text
from ..models.embed_input import Encoder
from ..settings import Settings
from ..store.checkpoints import Role
from ..trust import check_download
from ..workspace import Workspace
from .composed import ALONE
from .systems import RetrievalSystem

RERANKED = "reranked"
PLAIN = ("bm25", "bm25-attributes", "colors", "fusion", "hybrid", *ALONE, "base")
NAMED = ("checkpoint", "clip", "text", "run")
BASELINES = PLAIN
"""What `--baselines` adds, as far as there is something to go by."""


@dataclass(frozen=True)
class Entry:
    """One row of the table beside the embedder. `name` is the row's, fit for a file; `optional`: left out with a note
    when the catalog or the settings have nothing to make it from.
    """

    kind: str
    argument: str
    name: str
    optional: bool = False


def parse_entries(systems: Sequence[str], baselines: bool) -> list[Entry]:
    """Parse the rows that the settings ask for, each once; UsageError for an unknown one."""
    entries: dict[str, Entry] = {}
    for written in systems:
        kind, colon, argument = written.partition(":")
        kind, argument = kind.strip().casefold(), argument.strip()
        if (kind in PLAIN and colon) or (kind in NAMED and not argument) or kind not in (*PLAIN, *NAMED):
            known = ", ".join([*PLAIN, *(f"{each}:NAME" for each in NAMED)])
            raise UsageError(f"eval.systems: {written}: no such system", f"known: {known}")
        name = kind
        if argument:
            name += "-" + (re.sub(r"[^A-Za-z0-9.]+", "-", Path(argument).name).strip("-.") or "model")
        if name in entries and entries[name].argument != argument:
            name = next(f"{name}-{i}" for i in range(2, len(systems) + 2) if f"{name}-{i}" not in entries)
        entries[name] = Entry(kind, argument, name)
    for kind in BASELINES if baselines else ():
        entries.setdefault(kind, Entry(kind, "", kind, optional=True))
    return list(entries.values())


def model_system(entry: Entry, work: Workspace) -> RetrievalSystem:
    """Make the system of a base, checkpoint, clip or text entry; nothing is loaded yet. ModelError: not to be had."""
    if entry.kind in ("base", "checkpoint"):
        return _own_model(entry, work)
    from ..models.outside import PictureTextEncoder, SentenceEncoder, find_model
    from ..models.weights import find_snapshot

    settings, name = work.settings, entry.argument
    if name in settings.eval.foreign and not Path(name).expanduser().is_dir() and find_snapshot(name) is None:
        check_download(settings.eval, name)
    folder, id = find_model(settings.model, entry.argument, work.listener)
    reads_photos = entry.kind == "clip"
    encoder = PictureTextEncoder if reads_photos else SentenceEncoder

    @cache
    def load() -> Encoder:
        return encoder(folder, id, settings.model, settings.eval.batch_size)

    return RetrievalSystem(entry.name, id, load, photos=reads_photos)


def role_of(entry: Entry, work: Workspace) -> Role:
    """Return whose model a base or checkpoint entry is: a vision encoder's or an embedder's. Raises ModelError."""
    if entry.kind == "base":
        return "embedder" if reads_text(work.settings) else "vision"
    return "vision" if work.checkpoints.find(entry.argument, "embedder").role == "vision" else "embedder"


def _own_model(entry: Entry, work: Workspace) -> RetrievalSystem:
    role, model = role_of(entry, work), work.settings.model
    if entry.kind == "base" and role == "vision":
        id, load = work.bare_vision()
        return RetrievalSystem(entry.name, id, cache(load), text=False)
    names = {"embedder_checkpoint": "", "vision_checkpoint": "", f"{role}_checkpoint": entry.argument}
    model = model.model_copy(update=names)
    embed = work.embed_of(model)
    return RetrievalSystem(
        entry.name,
        work.embedder_id_of(model),
        cache(lambda: work.encoder(model)),
        text=role != "vision",
        query_instruction=embed.query_instruction,
        target_instruction=embed.target_instruction,
    )


def needs_attributes(settings: Settings, entries: Sequence[Entry]) -> bool:
    """Tell whether stored attributes play a part: in what the embedder reads, or in a row of their own."""
    return settings.embed.enrich != "none" and (
        reads_text(settings) or any(entry.kind == "bm25-attributes" for entry in entries)
    )
