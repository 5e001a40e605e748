from __future__ import annotations

import multiprocessing
import struct
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afmrl_cli.catalog.images import ImageProblem, open_image
from afmrl_cli.catalog.pictures import load_photos
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.errors import DataError
from afmrl_cli.settings import CatalogSettings

from .shop import photo, write

SETTINGS = CatalogSettings()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("mode", "color", "name", "expected"),
    [
        ("RGB", (255, 0, 0), "a.png", (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), "a.png", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), "a.png", (127, 127, 127)),
        ("LA", (0, 0), "a.png", (255, 255, 255)),
        ("L", 77, "a.png", (77, 77, 77)),
        ("1", 1, "a.png", (255, 255, 255)),
        ("P", 3, "a.png", None),
        ("CMYK", (0, 0, 0, 0), "a.jpg", (255, 255, 255)),
        ("CMYK", (0, 0, 0, 0), "a.tiff", (255, 255, 255)),
        ("I;16", 25_700, "a.png", (100, 100, 100)),
        ("I;16", 25_700, "a.tiff", (100, 100, 100)),
        ("F", 0.5, "a.tiff", (128, 128, 128)),
        ("RGB", (0, 0, 255), "a.webp", None),
        ("RGB", (0, 0, 255), "a.bmp", (0, 0, 255)),
        ("RGB", (0, 0, 255), "named_wrongly.jpg", None),
    ],
)
def test_modes_become_rgb(mode: str, color: object, name: str, expected: object, tmp_path: Path) -> None:
    opened = open_image(photo(tmp_path / name, color, mode=mode), SETTINGS)
    assert (opened.mode, opened.size) == ("RGB", (8, 8))
    if expected:
        assert opened.getpixel((4, 4)) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_photo_upright(orientation: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    image = Image.fromarray(np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    opened = open_image(tmp_path / "a.png", SETTINGS)
    with Image.open(tmp_path / "a.png") as original:
        expected = ImageOps.exif_transpose(original)
    assert np.array_equal(np.asarray(opened), np.asarray(expected))


def test_heic_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(ImageProblem, match="HEIC, as phones make it, is not read"):
        open_image(tmp_path / "a.heic", CatalogSettings())


def test_damaged_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    Image.new("RGB", (4, 6), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg", SETTINGS).size == (4, 6)


def test_an_animation_shows_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "a.gif", SETTINGS).getpixel((0, 0)) == (255, 0, 0)


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert open_image(tmp_path / "a.png", SETTINGS).getpixel((0, 0)) == (255, 255, 255)


def test_an_enormous_png_is_refused_before_decoding(tmp_path: Path) -> None:
    import tracemalloc

    file = write(tmp_path / "a.png", png_header(50_000, 50_000))
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageProblem, match=r"50,000 x 50,000 pixels, at most 50,000,000"):
            open_image(file, SETTINGS)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_the_limit_is_the_settings_alone(tmp_path: Path) -> None:
    file = photo(tmp_path / "a.png", size=(100, 100))
    assert open_image(file, CatalogSettings(max_image_pixels=10_000)).size == (100, 100)
    with pytest.raises(ImageProblem, match="at most 9,999"):
        open_image(file, CatalogSettings(max_image_pixels=9_999))


def test_what_is_no_photo_has_a_reason(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "whole.jpg")
    noise.save(tmp_path / "whole.png")
    jpeg, png = (tmp_path / "whole.jpg").read_bytes(), (tmp_path / "whole.png").read_bytes()
    reasons = {
        "text.jpg": (b"this is text\n" * 9, "no photo but text"),
        "page.jpg": (b"<!doctype html><html>404</html>", "no photo but HTML"),
        "drawing.svg": (b"<svg xmlns='x'/>", "no photo but HTML, SVG or XML"),
        "empty.jpg": (b"", "the file is empty"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged: image file is truncated"),
        "cut.png": (png[: len(png) // 2], "damaged: image file is truncated"),
        "stub.jpg": (jpeg[:4], "damaged"),
        "flipped.png": (png[:60] + bytes(byte ^ 255 for byte in png[60:90]) + png[90:], "damaged"),
        "noise.jpg": (bytes(range(256)), "not one of JPEG"),
        "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no photo but text"),
    }
    for name, (content, reason) in reasons.items():
        with pytest.raises(ImageProblem) as caught:
            open_image(write(tmp_path / name, content), SETTINGS)
        assert reason in caught.value.reason, name
        assert name in str(caught.value) and caught.value.exit_code == 3
    for path, reason in ((tmp_path, "not a plain file"), (tmp_path / "gone.jpg", "no such file")):
        with pytest.raises(ImageProblem, match=reason):
            open_image(path, SETTINGS)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.tiff"])
def test_no_damage_gets_past_as_another_error(name: str, tmp_path: Path) -> None:
    source = np.random.default_rng(1)
    Image.fromarray(source.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged TIFF tags that it gets over
        for _ in range(150):
            damaged = bytearray(whole[: source.integers(1, len(whole) + 1)])
            for at in source.integers(0, len(damaged), 6):
                damaged[at] = source.integers(0, 256)
            try:
                assert open_image(write(tmp_path / "x", bytes(damaged)), SETTINGS).mode == "RGB"
            except ImageProblem as problem:
                assert problem.reason


def test_photos_that_cannot_be_read_are_skipped_and_reported_or_fail(tmp_path: Path) -> None:
    bad, one, two = write(tmp_path / "bad.jpg", b"no"), photo(tmp_path / "1.png"), photo(tmp_path / "2.png")
    product = Product("A", images=(bad, one, two), row=7)
    problems = Problems()
    load_image = partial(open_image, settings=SETTINGS)
    for limit, readable in ((5, 2), (1, 1)):
        found = load_photos(product.images, load_image, limit)
        found.report(product.id, product.row, SETTINGS, problems)
        assert len(found.photos) == readable
    (first, _) = problems.first("unreadable image")
    assert (first.row, first.listing) == (7, "A") and "bad.jpg" in first.message
    with pytest.raises(DataError, match="row 7"):
        load_photos(product.images, load_image, 1).report(
            product.id, product.row, CatalogSettings(bad_images="fail"), Problems()
        )


def test_a_problem_is_the_same_in_another_process() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(ImageProblem, "a.jpg", "no such file", "missing image").result()
    assert (str(found), found.reason, found.kind) == ("a.jpg: no such file", "no such file", "missing image")
