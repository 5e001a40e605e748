"""What differs between two records, written as a wish and as a sentence, and verified at both ends.

    wish       color: red; sleeves: short                 as `search --change` reads it
    sentence   color red instead of blue, sleeves short instead of long

A pair is dropped, with the reason, where

    type differs          the two are not the same kind of product: asked before any attribute
    nothing differs       read again, no changed key is said at both ends
    same photo            what should have changed can't be seen
    contradicted          the other source of attributes (or the titles, of a colour) says the same of both ends

The last one compares a source with itself, so that two sources may call one colour by two words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from ..attributes.parse import write_attributes
from ..attributes.schema import folded
from .records import Record, compared, is_colour

COLOUR_KEY = "color"
"""The key of a colour that only titles name."""
SENTENCES = (
    ("{key} {to} instead of {was}", ", ", "{}"),
    ("{to} as {key}", " and ", "the same, but with {}"),
    ("the {key} from {was} to {to}", " and ", "change {}"),
)
"""Templates: of one changed key, what joins several, the whole."""
Change = Mapping[str, tuple[str, str]]
"""By key, as it is written: (value of the reference, value of the target)."""


def change_between(reference: Record, target: Record) -> dict[str, tuple[str, str]]:
    """Return what differs, in the order of the reference's keys: only keys that both ends say."""
    found = {
        key: (value, target.pairs[name][1])
        for name, (key, value) in reference.pairs.items()
        if name in target.pairs and reference.value(name) != target.value(name)
    }
    if not any(is_colour(name) for name in (*reference.pairs, *target.pairs)) and _other_colours(reference, target):
        assert reference.colour and target.colour
        found[COLOUR_KEY] = (reference.colour[1], target.colour[1])
    return found


def _other_colours(one: Record, other: Record) -> bool:
    """Check whether the titles of two variants of one style name different colours."""
    same_style = bool(one.group) and one.group == other.group
    return same_style and one.colour is not None and other.colour is not None and one.colour[0] != other.colour[0]


def fault_of(reference: Record, target: Record, change: Change) -> str:
    """Return why a pair is no triplet, "" for nothing."""
    same_style = bool(reference.group) and reference.group == target.group
    if reference.type != target.type and not (same_style and not (reference.type and target.type)):
        return "type differs"
    if not change:
        return "nothing differs"
    if reference.photo == target.photo:
        return "same photo"
    if any(_unchanged(reference, target, folded(key)) for key in change):
        return "contradicted"
    return ""


def _unchanged(reference: Record, target: Record, key: str) -> bool:
    """Check whether another source says that a key has the same value at both ends."""
    if key in reference.other and key in target.other:
        return compared(reference.other[key][1]) == compared(target.other[key][1])
    if is_colour(key) and reference.colour and target.colour:
        return reference.colour[0] == target.colour[0]
    return False


def wish_of(change: Change) -> str:
    """Write a change as attribute text of the target's values."""
    return write_attributes((key, to) for key, (_, to) in change.items())


def sentence_of(change: Change, name: str) -> str:
    """Write a change as a sentence; `name`, the pair's, says which template."""
    one, joint, whole = SENTENCES[blake2b(name.encode(), digest_size=8).digest()[0] % len(SENTENCES)]
    return whole.format(joint.join(one.format(key=key, was=was, to=to) for key, (was, to) in change.items()))


def marked(keys: Sequence[str], record: Record, change: Change) -> list[tuple[str, str, bool]]:
    """Return a record's (key, value, whether it is changed), the changed ones first, for people."""
    pairs = dict(record.pairs.values())
    rest = [(key, pairs[key], False) for key in keys if key in pairs and key not in change]
    return [(key, pairs.get(key, ""), True) for key in change] + rest
