"""The job: a catalog's split -> stored triplets, with what they were made from and what was dropped.

Nothing of it is random but by the seed, so that a killed run begins anew and comes to the same; the photos that it has
hashed are remembered. Where inputs and settings are those of the stored triplets, these stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..catalog.problems import Problems
from ..store.checkpoints import versions
from ..store.files import hash_json
from ..workspace import Workspace
from .change import change_between, sentence_of, wish_of
from .choose import Chosen, Pair, choose
from .records import NO_TYPE, NoTriplets, Record, Records, load_records
from .store import Triplet, TripletSplit, stored_manifest, write_triplets
from .verdicts import Verdicts, read_verdicts
from .windows import MOST_CHANGED, WINDOWS, Candidates, Encoded, encode, far, near, variants

VERSION = 1
"""Of the way in which triplets are made: another one makes them anew."""
UNCLEAR = "unclear: one end does not say the key"


@dataclass(frozen=True)
class Made:
    """The triplets of a split: their manifest, the records they are about, and whether they were stored before."""

    records: Records
    manifest: Mapping[str, Any]
    reused: bool


def make_triplets(work: Workspace, split: TripletSplit) -> Made:
    """Make and store the triplets of a split; the caller holds the lock. Raises NoTriplets where there are none."""
    problems = Problems()
    verdicts = read_verdicts(work)
    records = load_records(work, split, problems)
    problems.tell(work.listener)
    _tell_others(work, verdicts, records)
    key = _key(work, split, records, verdicts)
    stored = stored_manifest(work.folder, split)
    if stored is not None and stored.get("key") == key:
        return Made(records, stored, True)
    settings, rows = work.settings.triplets, records.rows
    encoded = encode(rows, settings.seed)
    found = _candidates(work, encoded)
    chosen = choose(rows, encoded, found, verdicts, settings)
    chosen.dropped[UNCLEAR] += sum(each.unclear for each in found.values())
    if not chosen.pairs:
        raise _none(work, split, records, chosen)
    manifest = {"key": key, "split": split, **_provenance(work, records), **_counts(records, chosen)}
    write_triplets(work.folder, split, _written(chosen.pairs, rows), manifest)
    return Made(records, manifest, False)


def _tell_others(work: Workspace, verdicts: Verdicts, records: Records) -> None:
    """Say how many verdicts are about listings that are not among the records."""
    ids = {record.id for record in records.rows}
    others = sum(not ids.issuperset(pair) for pair in verdicts.confirmed | verdicts.rejected)
    if others:
        work.listener.note(f"verdicts about listings of another split, without attributes, or gone: {others:,}")


def _candidates(work: Workspace, encoded: Encoded) -> dict[str, Candidates]:
    settings = work.settings.triplets
    found = {"variants": variants(encoded), "near": near(encoded, work.listener)}
    return found | ({"far": far(encoded, settings.seed)} if settings.far else {})


def _key(work: Workspace, split: TripletSplit, records: Records, verdicts: Verdicts) -> str:
    settings = work.settings.triplets.model_dump(exclude={"verdicts"})
    judged = [sorted(verdicts.confirmed), sorted(verdicts.rejected)]
    content = [VERSION, split, settings, records.source, records.made_by, records.fingerprint, judged]
    return hash_json(content)


def _provenance(work: Workspace, records: Records) -> dict[str, Any]:
    """Describe what the triplets were made from."""
    settings = work.settings
    return {
        "attributes": {
            "source": records.source,
            "made_by": list(records.made_by),
            "min_confidence": settings.attributes.min_confidence,
            "unused_keys": dict(records.unused),
        },
        "settings": settings.triplets.model_dump(),
        "versions": versions(),
    }


def _counts(records: Records, chosen: Chosen) -> dict[str, Any]:
    """Count what there is and what was dropped."""
    windows = Counter(pair.window for pair in chosen.pairs)
    keys = Counter(key for pair in chosen.pairs for key in pair.keys)
    rows = records.rows
    references = {rows[pair.reference].identity for pair in chosen.pairs}
    targets = {rows[pair.target].identity for pair in chosen.pairs}
    used = {at for pair in chosen.pairs for at in (pair.reference, pair.target)}
    return {
        "listings": len(rows),
        "left_out": dict(records.left_out) | {"in no triplet": len(rows) - len(used)},
        "triplets": len(chosen.pairs),
        "windows": {window: windows[window] for window in WINDOWS},
        "keys": dict(keys.most_common()),
        "references": len(references),
        "targets": len(targets),
        "confirmed": sum(pair.confirmed for pair in chosen.pairs),
        "dropped": {reason: number for reason, number in chosen.dropped.most_common() if number},
    }


def _written(pairs: list[Pair], rows: list[Record]) -> Iterator[Triplet]:
    for pair in pairs:
        reference, target = rows[pair.reference], rows[pair.target]
        change = change_between(reference, target)
        sentence = sentence_of(change, f"{reference.id}\0{target.id}")
        yield Triplet(reference.id, target.id, pair.window, wish_of(change), sentence, change, pair.confirmed)


def _none(work: Workspace, split: TripletSplit, records: Records, chosen: Chosen) -> NoTriplets:
    keys = sorted({key for record in records.rows for key in record.pairs})
    reasons = [f"{number:,} pairs: {reason}" for reason, number in chosen.dropped.most_common(3) if number]
    if untyped := records.left_out.get(NO_TYPE):
        reasons.append(f"{untyped:,} listings {NO_TYPE}")
    why = "; ".join(reasons)
    message = f"no two of the {len(records.rows):,} listings of the {split} split differ in one to {MOST_CHANGED} keys"
    named = f" (keys: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''})" if keys else ""
    hint = "more attributes make more pairs: columns in sft.columns, or `afmrl attributes`"
    return NoTriplets(f"{work.folder.catalog}: {message} and share the rest{named}{f'; {why}' if why else ''}", hint)
