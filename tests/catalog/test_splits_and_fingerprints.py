from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from afmrl_cli.catalog.fingerprints import UNREADABLE, Fingerprinter
from afmrl_cli.catalog.product import Product, product_fingerprint
from afmrl_cli.catalog.splits import split_of, with_shares
from afmrl_cli.settings import SplitSettings
from afmrl_cli.store.database import Database
from afmrl_cli.store.files import hash_file

from .shop import photo


def test_splits_have_their_shares_and_never_move() -> None:
    settings = SplitSettings(validation=0.1, test=0.2)
    counts = Counter(split_of(Product(f"p{i}"), settings) for i in range(20_000))
    assert abs(counts["test"] / 20_000 - 0.2) < 0.01 and abs(counts["validation"] / 20_000 - 0.1) < 0.01
    assert [split_of(Product(f"p{i}"), settings) for i in range(12)] == [
        split_of(Product(f"p{i}", title="other"), settings) for i in range(12)
    ]
    # Fixed for good: a split that moves between versions would leak test products into training.
    sides = [split_of(Product(f"p{i}"), SplitSettings()) for i in range(40)]
    assert [i for i, side in enumerate(sides) if side == "test"] == [0, 13, 21, 22, 28, 35]
    assert [i for i, side in enumerate(sides) if side == "validation"] == [4, 15, 20, 33, 36]


def test_small_shops_hold_more_out_unless_the_shares_are_set() -> None:
    open_ = SplitSettings(validation=None, test=None)
    for rows, share in ((99, 0.25), (100, 0.2), (399, 0.2), (400, 0.1)):
        found = with_shares(open_, rows)
        assert (found.validation, found.test, found.salt) == (share, share, open_.salt)
    assert with_shares(SplitSettings(validation=0.3, test=None), 50).validation == 0.3
    assert with_shares(SplitSettings(validation=0.3, test=None), 50).test == 0.25
    both = SplitSettings(validation=0.3, test=0.0)
    assert with_shares(both, 50) == both


def test_listings_of_one_product_are_on_one_side() -> None:
    settings = SplitSettings(validation=0.3, test=0.3)
    for i in range(200):
        sides = {split_of(Product(f"{i}-{n}", product_id=f"same{i}"), settings) for n in range(4)}
        assert len(sides) == 1
    salted = SplitSettings(validation=0.3, test=0.3, salt="other")
    products = [Product(str(i)) for i in range(200)]
    assert [split_of(p, settings) for p in products] != [split_of(p, salted) for p in products]


def test_a_fingerprint_follows_content_and_not_names(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", "red")
    product = Product("A", title="t", images=(path,))
    with Database(tmp_path / "db.sqlite") as database, Fingerprinter(database) as prints:
        first = prints.of(product)
        assert first == product_fingerprint(product, [hash_file(path)])
        assert prints.of(Product("B", title="t", images=(path,), row=9)) == first
        prints.flush()
        assert Fingerprinter(database).of(product) == first
        photo(path, "blue")
        assert Fingerprinter(database).of(product) != first
        path.unlink()
        assert prints.of(product) == product_fingerprint(product, [UNREADABLE])


def test_an_unchanged_photo_is_not_read_again(tmp_path: Path) -> None:
    import os

    path = photo(tmp_path / "a.png", "red")
    product = Product("A", images=(path,))
    with Database(tmp_path / "db.sqlite") as database:
        with Fingerprinter(database) as prints:
            first = prints.of(product)
        status, size = path.stat(), path.stat().st_size
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # another content, yet size and time say unchanged
        assert Fingerprinter(database).of(product) == first


def test_unchanged_photos_are_quick(tmp_path: Path) -> None:
    images = [photo(tmp_path / f"{i}.png") for i in range(50)]
    products = [Product(str(i), title=f"t{i}", images=(images[i % 50],)) for i in range(10_000)]
    with Database(tmp_path / "db.sqlite") as database:
        with Fingerprinter(database) as prints:
            for product in products[:50]:
                prints.of(product)
        begin = time.monotonic()
        again = Fingerprinter(database)
        for product in products:
            again.of(product)
        assert time.monotonic() - begin < 30  # seconds; unhurried, since test machines are busy
