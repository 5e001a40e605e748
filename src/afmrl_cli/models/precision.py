"""The precision of weights where the settings leave it open: by the architecture, and by what fits on the card.

    H = 2 bytes x numbers in the weights' files,   C = bytes of the card - 0.5 GiB of a CUDA context

    reading     bf16 where 2 H <= C, else nf4
    training    bf16 where 4 H <= C, else nf4; of an architecture that 4 bits do harm in training, where 2 H <= C
    no GPU      fp32: bf16 is a hundred times slower there

What is beside the weights (activations, caches, the adapter, a second model in RAR) takes the rest. Training a 2B model
(H = 4.3 GB) is thus in 4 bits on a card below 17.5 GiB or so, reading in bf16 from 8.5 GiB on. Where a card is named
and absent, a small one is meant: what the architecture is trained in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..settings import ModelSettings
from .device import device_memory, device_of

Precision = Literal["nf4", "bf16", "fp32"]
CONTEXT = 1 << 29
"""Bytes of a card that CUDA takes for itself."""


@dataclass(frozen=True)
class Choice:
    """A precision, and why it is that one: for people."""

    precision: Precision
    why: str


def fitting_precision(trained_in: Precision, half_bytes: int, card_bytes: int, *, training: bool) -> Choice:
    """Choose between bf16 and nf4 by the formula; `half_bytes` is H, `trained_in` is the architecture's."""
    times = 4 if training and trained_in == "nf4" else 2
    fits = times * half_bytes <= card_bytes - CONTEXT
    weights, card = f"{half_bytes / 1e9:.1f} GB of weights in bf16", f"{card_bytes / 1e9:.1f} GB"
    why = f"{weights} {'fit' if fits else 'do not fit'} {times} times into {card}"
    if not fits and training and trained_in == "bf16":
        why += "; 4 bits do harm here: a larger card or a smaller model is better"
    return Choice("bf16" if fits else "nf4", why)


def choose_precision(
    settings: ModelSettings, trained_in: Precision, numbers: Callable[[], int], *, training: bool
) -> Choice:
    """Resolve `model.precision` for a model of so many `numbers`, which are counted only where they decide."""
    if settings.precision != "auto":
        return Choice(settings.precision, "set by model.precision")
    if settings.device != "cuda" and device_of(settings) == "cpu":
        return Choice("fp32", "bf16 is slow without a GPU")
    card = device_memory()
    if card is None:
        return Choice(trained_in, "as on a small card: there is none to fit into")
    return fitting_precision(trained_in, 2 * numbers(), card, training=training)
