"""Vectors in two bytes or one byte a number, in place of four, and what that costs.

    fp16    each number rounded to half precision
    int8    q = round(127 z / max |z|),   z' = q / ||q||

Stored vectors have length 1, so that no scale is kept beside the int8 numbers: the length says it. What is read is
brought to length 1 again, piece by piece where it lies, and narrowing that again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .cache import open_matrix

Form = Literal["fp32", "fp16", "int8"]
FORMS: dict[Form, str] = {"fp32": "<f4", "fp16": "<f2", "int8": "|i1"}
"""The type of a stored number, from the widest to the narrowest."""
LARGEST = 127
ROWS = 65_536


class Narrow:
    """A stored matrix [n, d] of fp16 or int8 numbers that gives its rows as float32 of length 1."""

    def __init__(self, stored: NDArray[Any]) -> None:
        self.stored = stored
        self.shape: tuple[int, int] = (stored.shape[0], stored.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        return unit(np.asarray(self.stored[rows], dtype=np.float32))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)


Matrix = NDArray[np.float32] | Narrow


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `vectors` [..., d] with length 1; a vector of zeros becomes NaN, which no check lets through."""
    with np.errstate(invalid="ignore", divide="ignore"):
        made: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return made


def stored_rows(matrix: Matrix, rows: slice) -> NDArray[Any]:
    """Return the numbers of `rows` as they lie in the file: the same on every machine, unlike those of length 1."""
    return np.ascontiguousarray(matrix.stored[rows] if isinstance(matrix, Narrow) else matrix[rows])


def is_wider(form: Form, other: Form) -> bool:
    """Tell whether `form` holds more than `other`, so that it can't be made from it."""
    order = list(FORMS)
    return order.index(form) < order.index(other)


def open_form(file: Path, form: Form) -> Matrix:
    """Open the matrix in a .npy file, memory-mapped. Raises as `cache.open_matrix`."""
    stored = open_matrix(file, FORMS[form])
    return stored if form == "fp32" else Narrow(stored)


def write_form(matrix: NDArray[np.float32], form: Form, file: Path) -> None:
    """Write unit vectors [n, d] (may be memory-mapped) to a .npy file, row after row: a full disk is an OSError
    here, and a crash in a memory map.
    """
    with file.open("wb") as out:
        header = {"descr": FORMS[form], "fortran_order": False, "shape": matrix.shape}
        np.lib.format.write_array_header_1_0(out, header)
        for part in _parts(matrix):
            out.write(np.ascontiguousarray(_narrowed(part, form)).tobytes())


def _parts(matrix: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (matrix[start : start + ROWS] for start in range(0, len(matrix), ROWS))


def _narrowed(vectors: NDArray[np.float32], form: Form) -> NDArray[Any]:
    if form == "int8":
        vectors = np.rint(vectors * (LARGEST / np.abs(vectors).max(axis=1, keepdims=True)))
    return vectors.astype(FORMS[form])
