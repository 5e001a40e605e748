"""A sequential model as a baseline: causal self-attention over the last items (SASRec, Kang and McAuley 2018).

    x_0, x_1, ..., x_L     a learned start, then the embeddings of a customer's last L <= 50 items, oldest first, each
                           with a learned position
    h_t                    two blocks of self-attention over x_0 ... x_t and a feed-forward layer
    score of listing j     h_t . e_j, the embedding that j also enters with
    loss                   cross-entropy of what was taken after t over all listings

Departures from the paper: cross-entropy over all listings (above 5,000: over 1,024 sampled ones) instead of one
negative by a sigmoid, since that was most of what BERT4Rec had over SASRec (Klenitskiy and Vasilev 2023); the learned
start, so that a first item is learned too and a history of nothing known has an answer; histories longer than 50 are
cut into pieces instead of shortened; blocks with the layer norm first, as torch has them; positions count from the
start. Trained until nDCG@10 of the questions of validation has not grown for 10 epochs, the best epoch kept. What it
may cost is bounded by the number of items read.

A listing without a training row has no embedding that was learned: it is left out of histories, and ranks behind all
others, equally. No photo, no text: this is what the orders alone know.

Weights are trained on customers' histories, so they are stored in a folder that is emptied when a customer is
forgotten. The seed is fixed and training is deterministic for a number of threads; with another number sums are made in
another order, so that the last digits may differ.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..recommend.customers import recommend_folder
from ..recommend.split import VALIDATION
from ..store.files import FILES, checksum, find_damage, hash_json, read_object, reading, sealed, write_json, writing
from ..workspace import Workspace
from .histories import Histories, Items, Question, Scores, questions_of
from .metrics import joined, rank_targets

if TYPE_CHECKING:
    from torch import Tensor

    from .attention import Attention

VERSION = 2
"""Of this file and of attention.py: another one trains anew."""
FOLDER, WEIGHTS, MANIFEST = "sequential", "model.safetensors", "manifest.json"

LENGTH, WIDTH = 50, 64
BATCH, LARGE_BATCH, MANY = 128, 1024, 20_000
"""Histories of a step, and how many where there are more than `MANY`."""
RATE, BETAS = 1e-3, (0.9, 0.98)
SAMPLED_ABOVE, SAMPLE = 5_000, 1_024
EPOCHS, PATIENCE, UNSTOPPED, MOST_READ = 200, 10, 30, 3_000_000
"""Epochs at most, without growth, and without validation; items read in all epochs together."""
VALIDATED, AT_ONCE = 2_000, 256
"""Questions of validation at most, and how many are ranked at a time."""


@dataclass(frozen=True)
class Training:
    """How a model was trained: epochs, the best one, its nDCG@10 on validation (None without), torch's threads."""

    epochs: int
    best: int
    validation: float | None
    threads: int
    sampled: bool
    before: bool = False


class Sequential:
    """Ranks listings by a trained model; `learned` are those with a training row."""

    name = "sequential"

    def __init__(self, model: Attention, learned: NDArray[np.bool_], training: Training) -> None:
        self.model, self.learned, self.training = model, learned, training

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return scores [questions, listings]."""
        import torch

        self.model.eval()
        known = [each.history[self.learned[each.history]][-LENGTH:] for each in questions]
        with torch.no_grad():
            inputs = _padded(known)
            ends = torch.tensor([len(history) for history in known])
            hidden = self.model(inputs)[torch.arange(len(known)), ends]
            found: Scores = (hidden @ self.model.listings().T).numpy()
        found[:, ~self.learned] = found.min(axis=1, keepdims=True) - 1
        return found


def load_sequential(work: Workspace, histories: Histories, seed: int) -> Sequential:
    """Return the model of these histories: the stored one, or one that is trained now and stored. The caller holds the
    lock.
    """
    learned = np.zeros(len(histories.ids), dtype=np.bool_)
    learned[histories.item[histories.training]] = True
    print_ = _fingerprint(histories, seed)
    if (stored := _stored(work, print_, learned)) is not None:
        return stored
    model = _train(work, histories, learned, seed)
    _store(work, print_, model)
    return model


def _train(work: Workspace, histories: Histories, learned: NDArray[np.bool_], seed: int) -> Sequential:
    """Train until validation no longer grows."""
    import torch

    pieces = _pieces(histories)
    read = sum(map(len, pieces))
    questions = _validation(histories, seed)
    epochs = max(1, min(EPOCHS if questions else UNSTOPPED, MOST_READ // max(1, read)))
    generator = torch.Generator().manual_seed(seed)
    sampled = len(histories.ids) > SAMPLED_ABOVE
    best, value, since, epoch = None, -1.0, 0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(len(histories.ids))
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=BETAS)
        choices = torch.from_numpy(np.flatnonzero(learned)) if sampled else None
        for epoch in range(1, epochs + 1):
            work.listener.progress("training the sequential baseline", epoch, epochs)
            model.train()
            for batch in _batches(pieces, generator):
                loss = _loss(model, batch, choices, generator)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if not questions:
                continue
            now = _ndcg(Sequential(model, learned, Training(epoch, epoch, None, 0, sampled)), questions)
            if now > value:
                best, value, since = (epoch, copy.deepcopy(model.state_dict())), now, 0
            elif (since := since + 1) == PATIENCE:
                break
    if best is not None:
        model.load_state_dict(best[1])
    training = Training(epoch, best[0] if best else epoch, value if best else None, torch.get_num_threads(), sampled)
    return Sequential(model, learned, training)


def _new_model(listings: int) -> Attention:
    from .attention import Attention

    return Attention(listings, WIDTH, LENGTH)


def _pieces(histories: Histories) -> list[Items]:
    """Return what customers did in training, oldest first, in pieces of at most 51 listings, the last one full: 50
    histories and what came after each."""
    rows = np.flatnonzero(histories.training)
    items, customers = histories.item[rows], histories.customer[rows]
    pieces = []
    for own in np.split(items, np.flatnonzero(np.diff(customers)) + 1):
        first = len(own) % (1 + LENGTH)
        pieces += [piece for piece in np.split(own, range(first, len(own), 1 + LENGTH)) if len(piece)]
    return pieces


def _batches(pieces: Sequence[Items], generator: Any) -> Iterator[list[Items]]:
    """Yield batches in random order, each of histories of about one length: little of it is padding."""
    import torch

    size = LARGE_BATCH if len(pieces) > MANY else BATCH
    shuffled = torch.randperm(len(pieces), generator=generator).tolist()
    shuffled.sort(key=lambda place: len(pieces[place]))
    for number in torch.randperm(-(-len(pieces) // size), generator=generator).tolist():
        yield [pieces[place] for place in shuffled[number * size : (number + 1) * size]]


def _padded(histories: Sequence[Items]) -> Tensor:
    """Return model inputs [histories, 1 + longest]: the start, then listings, then padding."""
    import torch

    from .attention import FIRST, PADDING, START

    longest = max(map(len, histories), default=0)
    inputs = np.full((len(histories), 1 + longest), PADDING, dtype=np.int64)
    inputs[:, 0] = START
    for row, history in enumerate(histories):
        inputs[row, 1 : 1 + len(history)] = history + FIRST
    return torch.from_numpy(inputs)


def _loss(model: Attention, batch: Sequence[Items], choices: Tensor | None, generator: Any) -> Tensor:
    """Return the mean cross-entropy of each listing of the batch given those before it."""
    import torch
    from torch.nn.functional import cross_entropy

    from .attention import FIRST

    inputs = _padded(batch)
    targets = inputs[:, 1:] - FIRST
    real = targets >= 0
    hidden, right = model(inputs[:, :-1])[real], targets[real]
    if choices is None:
        return cross_entropy(hidden @ model.listings().T, right)
    others = choices[torch.randint(len(choices), (SAMPLE,), generator=generator)]
    table = model.listings()
    own = (hidden * table[right]).sum(dim=1, keepdim=True)
    logits = (hidden @ table[others].T).masked_fill(others[None, :] == right[:, None], -torch.inf)
    return cross_entropy(torch.cat([own, logits], dim=1), torch.zeros_like(right))


def _validation(histories: Histories, seed: int) -> list[Question]:
    questions = questions_of(histories, VALIDATION)
    if len(questions) <= VALIDATED:
        return questions
    chosen = np.random.default_rng(seed).choice(len(questions), VALIDATED, replace=False)
    return [questions[place] for place in sorted(chosen.tolist())]


def _ndcg(model: Sequential, questions: Sequence[Question]) -> float:
    """Return nDCG@10 of the questions, over the whole catalog."""
    found = []
    for start in range(0, len(questions), AT_ONCE):
        part = questions[start : start + AT_ONCE]
        targets = np.array([each.target for each in part], dtype=np.int32)
        found.append(rank_targets(model.scores(part), targets, model.name))
    return float(joined(found).values((10,))[:, 1].mean())


def _fingerprint(histories: Histories, seed: int) -> str:
    digest = hashlib.blake2b()
    for array in (histories.customer, histories.item, histories.seconds, histories.part):
        digest.update(np.ascontiguousarray(array).tobytes())
    return hash_json([VERSION, seed, list(histories.ids), digest.hexdigest()])


def _stored(work: Workspace, print_: str, learned: NDArray[np.bool_]) -> Sequential | None:
    """Return the stored model; None where there is none, it is of other histories, or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = recommend_folder(work.folder) / FOLDER
    if not (place / MANIFEST).is_file():
        return None
    try:
        with reading(place / MANIFEST):
            manifest = read_object(place / MANIFEST)
            if manifest["fingerprint"] != print_ or find_damage(manifest, place):
                return None
            model = _new_model(len(learned))
            weights = load_file(place / WEIGHTS)
            if not all(tensor.isfinite().all() for tensor in weights.values()):
                return None
            model.load_state_dict(weights)
            training = Training(**{**manifest["training"], "before": True})
    except (DataError, SafetensorError, RuntimeError):
        return None  # trained again
    return Sequential(model, learned, training)


def _store(work: Workspace, print_: str, model: Sequential) -> None:
    from safetensors.torch import save_file

    place = recommend_folder(work.folder) / FOLDER
    with writing(place / WEIGHTS) as temporary:
        save_file(model.model.state_dict(), temporary)
    content = {
        "fingerprint": print_,
        "training": {key: value for key, value in vars(model.training).items() if key != "before"},
        FILES: {WEIGHTS: checksum(place / WEIGHTS)},
    }
    write_json(place / MANIFEST, sealed(content, place))
