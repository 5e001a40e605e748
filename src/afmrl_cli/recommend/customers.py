"""Customers as keyed hashes: nothing that is stored or printed holds a name, an address or a number of one.

    .afmrl/recommend/key             32 random bytes, mode 600, made once
    .afmrl/recommend/forgotten.json  hashes of those who are left out of all later reads

A hash is BLAKE2b with that key, 64 bits of it. Without the key nobody can look hashes up from a list of e-mail
addresses; with 64 bits two of a million customers are taken for one once in 37 million shops.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..catalog.codes import code
from ..catalog.gaps import is_gap
from ..errors import DataError
from ..store.files import TEMPORARY_PREFIX, hash_json, make_folder, naming, read_json, write_json
from ..store.folder import CatalogFolder

KEY_BYTES, HASH_BYTES = 32, 8
KEY, FORGOTTEN = "key", "forgotten.json"
OF_CUSTOMERS = ("interactions", "sequential", "reasoning")
"""Folders of `.afmrl/recommend` that hold anything of single customers: emptied when one is forgotten."""
NOBODY = frozenset(("guest", "gast", "invite", "invitado", "ospite", "anonymous", "anonym", "anonymus", "anonyme"))
"""What shops write for everybody who has no account: not one customer."""


@dataclass(frozen=True)
class Customers:
    """The key by which customers are hashed, and the hashes of those who are left out."""

    key: bytes
    forgotten: frozenset[int] = frozenset()

    def hash_of(self, customer: str) -> int:
        """Return the hash of a customer's number or e-mail address in the form of `customer_text`."""
        digest = hashlib.blake2b(customer.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES, key=self.key)
        return int.from_bytes(digest.digest(), "big")

    @property
    def id(self) -> str:
        """Return what tells this key and list from others, and gives neither away."""
        return hash_json([_key_id(self.key), sorted(self.forgotten)])[:16]


def customer_text(cell: str) -> str:
    """Return a customer in the one form that is hashed, e-mail addresses in small letters; "" for nobody."""
    text = " ".join(code(cell).split())
    text = text.casefold() if "@" in text else text
    return "" if is_gap(text) or text.casefold() in NOBODY else text


def shown(hashed: int) -> str:
    """Return a hash as people see it: 16 digits."""
    return f"{hashed:016x}"


def recommend_folder(folder: CatalogFolder) -> Path:
    """Return where recommendation stores what it makes."""
    return folder.store / "recommend"


def unkept_customers(folder: CatalogFolder) -> Customers:
    """Return the stored key and list; without a key one that is not stored, for commands that write nothing."""
    key = _read_key(folder)
    return Customers(key or secrets.token_bytes(KEY_BYTES), _read_forgotten(folder, key))


def kept_customers(folder: CatalogFolder) -> Customers:
    """Return the key and the list; the key is made at the first call. The caller holds the lock. Raises DataError
    where they are damaged: with another key those who were forgotten would be read again.
    """
    key = _read_key(folder)
    forgotten = _read_forgotten(folder, key)
    path = recommend_folder(folder) / KEY
    if key is None:
        key = secrets.token_bytes(KEY_BYTES)
        _write_key(path, key)
    elif path.stat().st_mode & 0o077:  # as copies of a folder have it
        path.chmod(0o600)
    return Customers(key, forgotten)


def forget(folder: CatalogFolder, hashes: Iterable[int]) -> None:
    """Put customers on the list of those who are left out, then remove all that is stored of customers; it is made
    again without them. The caller holds the lock.
    """
    customers = kept_customers(folder)
    forgotten = customers.forgotten | frozenset(hashes)
    place = recommend_folder(folder)
    if forgotten != customers.forgotten:
        names = sorted(map(shown, forgotten))
        content = {"key": _key_id(customers.key), "customers": names}
        write_json(place / FORGOTTEN, {**content, "seal": hash_json(content)[:16]})
    for name in OF_CUSTOMERS:
        if (place / name).is_dir():
            shutil.rmtree(place / name)


def _key_id(key: bytes) -> str:
    return hashlib.blake2b(b"afmrl", digest_size=8, key=key).hexdigest()


def _read_key(folder: CatalogFolder) -> bytes | None:
    path = recommend_folder(folder) / KEY
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(key) != KEY_BYTES:
        raise _lost(path, f"damaged: {len(key)} bytes where {KEY_BYTES} were written")
    return key


def _write_key(path: Path, key: bytes) -> None:
    make_folder(path.parent)
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)  # of mode 600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


def _read_forgotten(folder: CatalogFolder, key: bytes | None) -> frozenset[int]:
    path = recommend_folder(folder) / FORGOTTEN
    if not path.exists():
        return frozenset()
    try:
        content = read_json(path)
        seal = content.pop("seal")
        hashes = frozenset(int(name, 16) for name in content["customers"])
    except (DataError, KeyError, TypeError, AttributeError, ValueError):
        raise _lost(path, "damaged") from None
    if seal != hash_json(content)[:16]:
        raise _lost(path, "damaged: not what was stored")
    if key is None or content["key"] != _key_id(key):
        raise _lost(path, f"was made with another {KEY} than the one beside it")
    return hashes


def _lost(path: Path, what: str) -> DataError:
    hint = f"restore it from a copy; or remove {path.parent} and forget those customers again, who are read until then"
    return DataError(f"{path}: {what}", hint)
