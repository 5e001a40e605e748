"""What the shoppers of a drawn shop take next by the true probabilities: the row that no recommender can beat."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ..errors import DataError
from ..nano.shoppers import TRUTH, Truth, next_item_probabilities, read_truth
from ..recommend.customers import Customers, customer_text
from .histories import Histories, Question, Scores


class Oracle:
    """Ranks by the probabilities of `truth`, which nobody knows of a real shop."""

    name = "oracle"

    def __init__(self, truth: Truth, histories: Histories, customers: Customers) -> None:
        by_hash = {customers.hash_of(customer_text(name)): name for name in truth.shoppers}
        self.truth, self.ids = truth, histories.ids
        self.shoppers = [by_hash.get(int(hashed), "") for hashed in histories.customers]

    def scores(self, questions: Sequence[Question]) -> Scores:
        """Return the probabilities [questions, listings]; 0 for a customer who is no shopper."""
        found = np.zeros((len(questions), len(self.ids)), dtype=np.float32)
        for row, question in enumerate(questions):
            if name := self.shoppers[question.customer]:
                time = datetime.fromtimestamp(question.seconds, UTC)
                chances = next_item_probabilities(self.truth, name, time)
                found[row] = [chances.get(listing, 0.0) for listing in self.ids]
        return found


def read_own_truth(root: Path) -> Truth | None:
    """Return the truth of the drawn shop in the folder `root`; None where there is none. Raises DataError where the
    file is something else.
    """
    path = root / TRUTH
    if not path.is_file():
        return None
    if root.resolve() not in path.resolve().parents:
        raise DataError(f"{path}: is a link that leads out of the folder", "remove it: only drawn shops have that file")
    try:
        return read_truth(root)
    except ValidationError as error:
        raise DataError(
            f"{path}: is no truth of a drawn shop", "remove or rename it: `afmrl eval-recommender` reads it"
        ) from error
