"""Which systems stand in the table: `eval.systems` and what each name means.

bm25               BM25 over the text of the listings
bm25-attributes    BM25 over stored attribute values
colors             colour histograms of the photos
fusion             the embedder and BM25 over text, weighted as other queries say
change-alone       composed queries: the embedder is shown their words alone
reference-alone    composed queries: it is shown their photos alone
attributes-alone   composed queries: it is shown their reference's attributes with the change, as text, alone
base               the embedder's base without its checkpoint (zero-shot)
checkpoint:NAME    the embedder with another checkpoint, such as one trained with plain InfoNCE
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
from ..models.embed_input import Encoder
from ..trust import check_download
from ..workspace import Workspace
from .composed import ALONE
from .systems import RetrievalSystem

RERANKED = "reranked"
PLAIN = ("bm25", "bm25-attributes", "colors", "fusion", *ALONE, "base")
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


def _own_model(entry: Entry, work: Workspace) -> RetrievalSystem:
    model = work.settings.model.model_copy(update={"embedder_checkpoint": entry.argument})
    embed = work.embed_of(model)
    return RetrievalSystem(
        entry.name,
        work.embedder_id_of(model),
        cache(lambda: work.encoder(model)),
        query_instruction=embed.query_instruction,
        target_instruction=embed.target_instruction,
    )
