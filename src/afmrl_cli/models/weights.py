"""A model's files: where the hub's cache keeps them, how many numbers they hold, a fast fingerprint of gigabytes."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelError
from ..store.files import parse_json

WHOLE_FILE_BYTES = 64 << 20
EDGE_BYTES = 1 << 20


def missing_weights(folder: Path) -> str:
    """Return the first safetensors file that should be in `folder` and is not, "" when all are there."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(parse_json(index.read_text("utf-8"))["weight_map"].values()))
            names = [name for name in names if Path(name).name == name] or ["model.safetensors"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{index}: not an index of weights: {error}", "fetch or copy the model again") from error
    return next((name for name in names if not (folder / name).is_file()), "")


@functools.cache
def count_numbers(folder: Path) -> int:
    """Return how many numbers the safetensors files in `folder` hold, by their headers. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    found = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "np") as weights:
                found += sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            reason = str(error).strip().split("\n", 1)[0][:200]
            raise ModelError(f"{file}: can't be read: {reason}", "fetch or copy the model again") from error
    return found


def find_snapshot(name: str, revision: str = "") -> Path | None:
    """Return the folder of hub model `name` in the local cache, complete with weights; None when it is not there.

    No network: what is cached under the branch or commit `revision` (default: main) is used as it is.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision or None)
    except HFValidationError as error:
        raise ModelError(f"{name}: no such folder, and not a hub name", "check the spelling") from error
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return None if missing_weights(folder) else folder


def fingerprint_files(files: Sequence[Path]) -> str:
    """Return SHA-256 (hex) over names and bytes; of a file above 64 MiB its size, safetensors header, first and last
    MiB.

    Fine-tuning changes every tensor, so what is skipped in between can't differ alone, short of malice.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            size = file.stat().st_size
            digest.update(f"{file.name}\0{size}\0".encode())
            with file.open("rb") as stream:
                if size <= WHOLE_FILE_BYTES:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
                    continue
                header = int.from_bytes(stream.read(8), "little")
                stream.seek(0)
                digest.update(stream.read(max(EDGE_BYTES, min(8 + header, WHOLE_FILE_BYTES))))
                stream.seek(-EDGE_BYTES, os.SEEK_END)
                digest.update(stream.read())
        except OSError as error:
            raise ModelError(f"{file}: can't be read: {error.strerror}", "fetch or copy the model again") from error
    return digest.hexdigest()
