"""Photos as cameras, shops and disks leave them: colour profiles, damaged metadata, a missing end, other names."""

from __future__ import annotations

import io
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from afmrl_cli.catalog import images as module
from afmrl_cli.catalog.fingerprints import Fingerprinter, photo_hash
from afmrl_cli.catalog.images import ImagePaths, ImageProblem, check_image, checked_size, open_image, open_small
from afmrl_cli.catalog.photo_check import PhotoCheck
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.settings import CatalogSettings
from afmrl_cli.store.database import Database, StoredImageHash
from afmrl_cli.store.files import hash_file

from .shop import photo, write

SETTINGS = CatalogSettings()
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
"""Primaries of Adobe RGB (1998): x and y of red, green and blue; its gamma is 563/256, its white D65."""
WHITE = np.array([0.9505, 1.0, 1.089])
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile(*, grey: bool = False) -> bytes:
    """An ICC profile of version 2 for Adobe RGB, or for grey of the same gamma, written as the standard says."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in ADOBE]).T
    xyz = xyz * np.linalg.solve(xyz, WHITE)
    to_d50 = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ WHITE)) @ BRADFORD
    columns = (to_d50 @ xyz).T
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(563 / 256 * 256)) + b"\0\0"
    tags = {b"desc": b"desc" + struct.pack(">II", 0, 2) + b"a\0" + bytes(78), b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50)}
    if grey:
        tags[b"kTRC"] = curve
    else:
        for letter, column in zip((b"r", b"g", b"b"), columns, strict=True):
            tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*column)
            tags[letter + b"TRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(table + body), b"none", 0x02400000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ "
    )
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + fixed(*D50)
    return head.ljust(128, b"\0") + table + body


def in_adobe_rgb(red: int, green: int, blue: int) -> tuple[int, ...]:
    """How Adobe RGB stores a colour of sRGB, by the formulas of both."""
    srgb = np.array([red, green, blue]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in ADOBE]).T
    adobe = np.linalg.solve(xyz * np.linalg.solve(xyz, WHITE), to_xyz @ linear)
    return tuple(int(v) for v in (adobe.clip(0, 1) ** (256 / 563) * 255).round())


def near(found: object, wanted: tuple[int, ...]) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.avif"])
def test_a_colour_profile_is_converted(name: str, tmp_path: Path) -> None:
    stored = in_adobe_rgb(200, 30, 40)
    assert near(stored, (171, 35, 44))
    Image.new("RGB", (32, 32), stored).save(tmp_path / name, icc_profile=profile(), quality=100)
    for opened in (open_image(tmp_path / name, SETTINGS), open_small(tmp_path / name, SETTINGS, 8)):
        assert near(opened.getpixel((5, 5)), (200, 30, 40))


def test_a_profile_holds_for_palettes_and_beside_transparency(tmp_path: Path) -> None:
    stored = in_adobe_rgb(200, 30, 40)
    Image.new("RGB", (8, 8), stored).quantize(4).save(tmp_path / "p.png", icc_profile=profile())
    clear = Image.new("RGBA", (8, 8), (*stored, 255))
    clear.putpixel((0, 0), (*stored, 0))
    clear.save(tmp_path / "a.png", icc_profile=profile())
    assert near(open_image(tmp_path / "p.png", SETTINGS).getpixel((4, 4)), (200, 30, 40))
    opened = open_image(tmp_path / "a.png", SETTINGS)
    assert near(opened.getpixel((4, 4)), (200, 30, 40)) and opened.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_has_profiles_too(mode: str, tmp_path: Path) -> None:
    """A linear grey of a half is 188 in sRGB; here gamma 2.2 stores it as 186, so a dark one tells more: 20 -> 25."""
    color: object = {"L": 20, "LA": (20, 255), "I;16": 20 * 257}[mode]
    Image.new(mode, (8, 8), color).save(tmp_path / "a.png", icc_profile=profile(grey=True))  # type: ignore[arg-type]
    linear = (20 / 255) ** (563 / 256)
    wanted = round(255 * (1.055 * linear ** (1 / 2.4) - 0.055 if linear > 0.0031308 else 12.92 * linear))
    found = open_image(tmp_path / "a.png", SETTINGS).getpixel((4, 4))
    assert near(found, (wanted,) * 3)


def test_srgb_and_profiles_that_can_not_be_used_leave_the_pixels_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    whole = profile()
    broken = [srgb, b"", b"no profile", whole[:150], whole[:36] + b"xxxx" + whole[40:], bytes(5000), profile(grey=True)]
    for i, icc in enumerate(broken):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png", icc_profile=icc)
        assert np.array_equal(np.asarray(open_image(tmp_path / f"{i}.png", SETTINGS)), pixels), i


def test_only_photos_that_are_shown_otherwise_count_as_changed(tmp_path: Path) -> None:
    """So that vectors and attributes of those are made anew, and of no others."""
    plain, profiled = photo(tmp_path / "plain.png"), tmp_path / "adobe.png"
    Image.new("RGB", (8, 8), "red").save(profiled, icc_profile=profile())
    endless = write(tmp_path / "endless.jpg", jpeg()[:-2])
    assert photo_hash(plain) == hash_file(plain)
    assert photo_hash(profiled) != hash_file(profiled) and photo_hash(endless) != hash_file(endless)
    with Database(tmp_path / "db.sqlite") as database:
        status = profiled.stat()  # as an earlier version has stored it
        old = StoredImageHash(str(profiled), status.st_size, status.st_mtime_ns, hash_file(profiled))
        database.put_image_hashes([old])
        with Fingerprinter(database) as prints:
            assert prints.hash_of(profiled) == photo_hash(profiled)
        assert Fingerprinter(database).hash_of(profiled) == photo_hash(profiled)


def test_a_photo_that_the_database_knows_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo(tmp_path / "a.png")
    with Database(tmp_path / "db.sqlite") as database:
        with Fingerprinter(database) as prints:
            known = prints.hash_of(path)
        monkeypatch.setattr("afmrl_cli.catalog.fingerprints._known", {})
        monkeypatch.setattr("afmrl_cli.catalog.fingerprints.hash_file", None)
        assert Fingerprinter(database).hash_of(path) == known == photo_hash(path)


# Damaged files


def jpeg(**how: object) -> bytes:
    shades = np.linspace(0, 255, 120)[:, None, None] * np.linspace(0.3, 1, 90)[None, :, None] * np.array([1, 0.7, 0.4])
    noise = np.random.default_rng(3).normal(0, 12, shades.shape)
    file = io.BytesIO()
    Image.fromarray((shades + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", **how)
    return file.getvalue()


def png(*chunks: tuple[bytes, bytes], wrong: bool = False, at_end: bool = False) -> bytes:
    """A PNG with chunks after its header, or before its end, perhaps with a wrong checksum."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    made = file.getvalue()
    place = len(made) - 12 if at_end else 33
    more = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)
        for kind, data in chunks
    )
    return made[:place] + more + made[place:]


BOMB = zlib.compress(bytes(8 * 2**20))


@pytest.mark.parametrize(
    "content",
    [
        png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB)),
        png((b"zTXt", b"Comment\0\0" + BOMB)),
        png((b"zTXt", b"Comment\0\0" + BOMB), at_end=True),
        png((b"iCCP", b"icc\0\0" + BOMB)),
        png(*((b"tEXt", b"Comment\0" + b"x" * 900_000) for _ in range(80))),
        png((b"tEXt", b"Comment\0x"), wrong=True),
        png((b"eXIf", b"nonsense"), wrong=True),
        png((b"gAMA", b"\0"), wrong=True),
        png()[:-12],
        png()[:-4],
    ],
)
def test_metadata_never_costs_a_png(content: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", content)
    assert open_image(path, SETTINGS).getpixel((4, 4)) == (255, 0, 0)
    assert check_image(path, SETTINGS).size == (8, 8)


@pytest.mark.parametrize("place", ["begin", "end"])
@pytest.mark.parametrize("kind", [b"tRNS", b"iCCP", b"sRGB", b"cHRM", b"pHYs", b"acTL", b"fcTL", b"iTXt"])
def test_nonsense_in_any_chunk_beside_the_pixels_costs_no_png(kind: bytes, place: str, tmp_path: Path) -> None:
    for content in (b"", b"\x01", b"x\0\x63nonsense", bytes(range(200))):
        for wrong in (False, True):
            path = write(tmp_path / "a.png", png((kind, content), wrong=wrong, at_end=place == "end"))
            assert open_image(path, SETTINGS).size == (8, 8), (content, wrong)


@pytest.mark.parametrize(
    ("marker", "name"),
    [
        *((0xE0, b"JFIF\0"), (0xE1, b"Exif\0\0MM\0*"), (0xE2, b"MPF\0MM\0*\0\0\0\x08"), (0xE2, b"ICC_PROFILE\0")),
        *((0xED, b"Photoshop 3.0\x008BIM\x04\x04"), (0xEE, b"Adobe"), (0xFE, b""), (0xE5, b"")),
    ],
)
def test_nonsense_in_any_segment_beside_the_pixels_costs_no_jpeg(marker: int, name: bytes, tmp_path: Path) -> None:
    whole = jpeg()
    wanted = np.asarray(open_image(write(tmp_path / "whole.jpg", whole), SETTINGS))
    for more in (b"", b"\x01", b"\xff\xff\xff", bytes(range(60))):
        segment = bytes([0xFF, marker]) + struct.pack(">H", len(name + more) + 2) + name + more
        opened = np.asarray(open_image(write(tmp_path / "a.jpg", whole[:2] + segment + whole[2:]), SETTINGS))
        assert opened.shape == wanted.shape and (marker == 0xEE or np.array_equal(opened, wanted)), more


def test_a_jpeg_keeps_its_pixels_and_its_turn_without_its_other_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = jpeg(exif=exif)
    wanted = open_image(write(tmp_path / "whole.jpg", whole), SETTINGS)
    for before in (b"\r\n", b"\xef\xbb\xbf"):
        opened = open_image(write(tmp_path / "a.jpg", before + whole), SETTINGS)
        assert opened.size == (120, 90) and np.array_equal(np.asarray(opened), np.asarray(wanted))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_is_read_and_reported(progressive: bool, tmp_path: Path) -> None:
    whole = jpeg(progressive=progressive, quality=90)
    wanted = np.asarray(open_image(write(tmp_path / "whole.jpg", whole), SETTINGS)).astype(int)
    for missing in (1, 2, 3, 4):
        path = write(tmp_path / f"{missing}.jpg", whole[:-missing])
        opened = np.asarray(open_image(path, SETTINGS)).astype(int)
        assert (np.abs(opened - wanted).max(axis=2) > 0).mean() < 0.03, missing
        assert check_image(path, SETTINGS).note == "its end is missing"
    problems = Problems()
    with PhotoCheck(SETTINGS, problems, open_photos=True) as check:
        check.add(Product("A", images=(path,), row=2))
    (problem,) = problems.first("mended image")
    assert problem.severity == "warning" and "its end is missing" in problem.message


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.9, 0.95])
def test_a_jpeg_that_is_cut_off_is_refused(progressive: bool, share: float, tmp_path: Path) -> None:
    whole = jpeg(progressive=progressive, quality=90)
    with pytest.raises(ImageProblem, match="truncated"):
        open_image(write(tmp_path / "a.jpg", whole[: int(len(whole) * share)]), SETTINGS)


# Once


def test_a_photo_that_many_rows_name_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [photo(tmp_path / f"{i}.png", size=(8, 6)) for i in range(2)] + [write(tmp_path / "bad.png", b"no")]
    opened, really = [], module._quiet_open
    monkeypatch.setattr(module, "_quiet_open", lambda source: opened.append(source) or really(source))  # type: ignore[func-returns-value]
    problems = Problems()
    with PhotoCheck(SETTINGS, problems, open_photos=True) as check:
        for row in range(200):
            check.add(Product(f"A{row}", title=f"t{row}", images=tuple(paths), row=row))
    assert [opened.count(path) for path in paths] == [2, 2, 1]  # to check it, and for its hash
    assert problems.counts["unreadable image"] == 200 and problems.counts["shared photo"] == 1
    opened.clear()
    for _ in range(5):
        assert checked_size(paths[0], SETTINGS) == (8, 6)
        with pytest.raises(ImageProblem):
            checked_size(paths[2], SETTINGS)
    assert [opened.count(path) for path in paths] == [1, 0, 1]


# Names


def find(root: Path, cell: str) -> str:
    return str(ImagePaths(root, SETTINGS).find(cell).relative_to(root.resolve()))


def test_names_that_differ_only_in_how_they_are_written_are_found(tmp_path: Path) -> None:
    for name in (
        "a.jpg",
        "my photo.jpg",
        unicodedata.normalize("NFC", "blåklocka.jpg"),
        "100% wool.png",
        "Sub/c%20d.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo(tmp_path / name)
    photo(tmp_path / unicodedata.normalize("NFD", "häst.jpg"))
    for cell, name in {
        "A.JPG": "a.jpg",
        "My%20Photo.jpg": "my photo.jpg",
        unicodedata.normalize("NFD", "BLÅklocka.jpg"): unicodedata.normalize("NFC", "blåklocka.jpg"),
        unicodedata.normalize("NFC", "häst.jpg"): unicodedata.normalize("NFD", "häst.jpg"),
        "bl%C3%A5klocka.jpg": unicodedata.normalize("NFC", "blåklocka.jpg"),
        "100%25%20wool.png": "100% wool.png",
        "sub/C D.JPG": "Sub/c%20d.jpg",
        "sub\\c d.jpg": "Sub/c%20d.jpg",
    }.items():
        assert find(tmp_path, cell) == name, cell


def test_what_is_not_clear_is_reported_with_the_nearest_name(tmp_path: Path) -> None:
    for name in ("b.jpg", "B.JPG", "blouse-front.jpg"):
        photo(tmp_path / name)
    assert find(tmp_path, "b.jpg") == "b.jpg"
    with pytest.raises(ImageProblem, match=r"no such file; B\.JPG and b\.jpg differ from it only"):
        find(tmp_path, "b.Jpg")
    with pytest.raises(ImageProblem, match=r"no such file; the nearest name is blouse-front\.jpg"):
        find(tmp_path, "blouse_front.jpg")
    with pytest.raises(ImageProblem) as caught:
        find(tmp_path, "something-else.jpg")
    assert caught.value.reason == "no such file"


def test_no_spelling_leads_out_of_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "shop"
    inside.mkdir()
    photo(tmp_path / "secret.jpg")
    (inside / "link").symlink_to(tmp_path)
    for cell in ("%2e%2e/secret.jpg", "..%2fsecret.jpg", "LINK/SECRET.JPG", "link/Secret.jpg", "../SECRET.jpg"):
        with pytest.raises(ImageProblem):
            find(inside, cell)
