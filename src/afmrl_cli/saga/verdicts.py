"""How often a generator is right about pairs of photos: what `train-vision` asks before it trains by its verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..listener import Listener
from ..settings import Settings
from .adjudicator import Question, adjudicate
from .pairs import fixed_pairs
from .photos import PhotoSet

if TYPE_CHECKING:
    from ..models.generator import LocalGenerator

AT_A_TIME = 128


@dataclass(frozen=True)
class Verdicts:
    """How many pairs were judged, how many verdicts are right, and how many answers have none that can be read, which
    is wrong, too.
    """

    right: int
    asked: int
    unreadable: int


def share_of_right(
    generator: LocalGenerator,
    question: Question,
    words: tuple[str, str],
    photos: PhotoSet,
    settings: Settings,
    listener: Listener,
) -> Verdicts:
    """Let `generator`, loaded with `judging`, judge the fixed pairs of `photos`, half of them the same, half near and
    different: those that `train-sft` validates on where `photos` are the validation photos.
    """
    pairs = fixed_pairs(photos, settings.vision.validation_pairs)
    right = unreadable = 0
    for begin in range(0, len(pairs), AT_A_TIME):
        some = pairs[begin : begin + AT_A_TIME]
        shown = [(pair.first.photo.path, pair.second.photo.path) for pair in some]
        found = [each.same for each in adjudicate(generator, question, words, shown, settings.catalog)]
        right += sum(verdict is pair.same for verdict, pair in zip(found, some, strict=True))
        unreadable += found.count(None)
        listener.progress("judging pairs", begin + len(some), len(pairs))
    return Verdicts(right, len(pairs), unreadable)
