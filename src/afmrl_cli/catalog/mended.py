"""Photos whose pixels are whole and whose file is not: metadata that can't be read, or an end that is missing.

A PNG is written anew with the chunks that pixels come from; texts of any size and chunks with a wrong checksum beside
them are left out. A JPEG is written anew from its start marker with the segments that it is decoded by. One that
lacks its end marker, and perhaps a few bytes before it, is whole when what follows hardly changes a pixel: it is
decoded once with nothing and once with noise after its last byte. Of a progressive JPEG all passes must be there, too.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field

from .decoder_errors import DECODER_ERRORS

LARGEST = 100 * 2**20
"""Bytes of a file that is read as a whole."""
PNG = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
MEANING_CHUNKS = {b"tRNS", b"iCCP", b"eXIf"}
"""What says how pixels are meant: kept where it is sound."""
SEGMENTS = {0xE0: (b"JFIF\0", 14), 0xE2: (b"ICC_PROFILE\0", 14), 0xEE: (b"Adobe", 12)}
"""APP segments that decoders go by: their names and how long they are at least."""
METADATA = "metadata that can't be read is left out"
NO_END = "its end is missing"
LEADING = 64
"""Bytes that may stand before a JPEG's start, such as a line break that a shop's program has put there."""
NOISE = bytes(range(1, 251)) * 8
CHANGED_SHARE, CHANGED_BLOCK, BLOCK_SHARE = 0.01, 256, 0.12
"""Pixels that noise may change: a hundredth, or a block of 16 x 16 in a small picture."""


def mended(data: bytes) -> tuple[bytes, str] | None:
    """Return the file anew and what was wrong with it; None when that is not how it is damaged."""
    if data.startswith(PNG):
        return _mended_png(data)
    start = data.find(b"\xff\xd8\xff", 0, LEADING)
    return _mended_jpeg(data[start:]) if start >= 0 else None


def _mended_png(data: bytes) -> tuple[bytes, str] | None:
    chunks, at, ended, begun = [], len(PNG), False, False
    while at + 12 <= len(data) and not ended:
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        sound = len(chunk) == 12 + length and struct.pack(">I", zlib.crc32(chunk[4:-4])) == chunk[-4:]
        begun |= kind == b"IDAT"
        if kind in PIXEL_CHUNKS or (kind in MEANING_CHUNKS and sound and not begun):
            chunks.append(chunk)
        ended = kind == b"IEND"
        at += 12 + length
    if not ended:
        chunks.append(struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))
    found = PNG + b"".join(chunks)
    if not _opens(found):  # what says how the pixels are meant can't be read either
        found = PNG + b"".join(chunk for chunk in chunks if chunk[4:8] in PIXEL_CHUNKS)
    return found, METADATA if ended else NO_END


def _opens(data: bytes) -> bool:
    """Tell whether the header can be read and, where it says so, the transparency be used."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if isinstance(clear := image.info.get("transparency"), bytes | tuple | int):
                one = Image.new(image.mode, (1, 1))
                one.info["transparency"] = clear
                one.convert("RGBA")
            return True
    except DECODER_ERRORS:
        return False


@dataclass
class _Scans:
    """Which coefficients of which components a JPEG's scans bring, down to the last bit."""

    progressive: bool = False
    components: set[int] = field(default_factory=set)
    left: dict[tuple[int, int], int] = field(default_factory=dict)
    """Bits that a component's coefficient still lacks; absent: all of them."""

    def frame(self, marker: int, segment: bytes) -> None:
        self.progressive = marker == 0xC2
        self.components = {segment[6 + 3 * i] for i in range(segment[5]) if len(segment) > 6 + 3 * i}

    def scan(self, segment: bytes) -> None:
        count = segment[0]
        first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
        for component in segment[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, last + 1):
                self.left[component, coefficient] = bits & 15

    def whole(self) -> bool:
        wanted = range(64) if self.progressive else range(1)
        return bool(self.components) and all(self.left.get((c, i)) == 0 for c in self.components for i in wanted)


def _mended_jpeg(data: bytes) -> tuple[bytes, str] | None:
    out, scans, at, ended = [b"\xff\xd8"], _Scans(), 2, False
    try:
        while at + 2 <= len(data) and not ended:
            if data[at] != 0xFF:
                return None
            marker = data[at + 1]
            if marker == 0xFF:
                at += 1
                continue
            if marker == 0xD9:
                out.append(data[at : at + 2])
                ended = True
                break
            (length,) = struct.unpack(">H", data[at + 2 : at + 4])
            segment = data[at + 4 : at + 2 + length]
            end = at + 2 + length
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                scans.frame(marker, segment)
            if marker == 0xDA:
                scans.scan(segment)
                end = _end_of_scan(data, end)
            if marker < 0xE0 or _keeps_pixels(marker, segment):
                out.append(data[at:end])
            at = end
    except (struct.error, IndexError, ValueError):
        return None
    found = b"".join(out)
    if ended:
        return found, METADATA
    found = found.rstrip(b"\xff")  # the first half of a marker
    return (found + b"\xff\xd9", NO_END) if scans.whole() and _all_there(found) else None


def _keeps_pixels(marker: int, segment: bytes) -> bool:
    """Tell whether an APP segment says how the pixels are meant: JFIF, Adobe's, a profile, or an EXIF that can
    be read.
    """
    from PIL import Image

    if marker in SEGMENTS:
        name, length = SEGMENTS[marker]
        return segment.startswith(name) and len(segment) >= length and _opens(_alone(marker, segment))
    if marker != 0xE1 or not segment.startswith(b"Exif\0\0"):
        return False
    try:
        exif = Image.Exif()
        exif.load(segment)
        dict(exif)
    except DECODER_ERRORS:
        return False
    return True


def _alone(marker: int, segment: bytes) -> bytes:
    """Return a JPEG of which this segment is the only one that is not about pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG")
    made = file.getvalue()
    (jfif,) = struct.unpack(">H", made[4:6])
    return made[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(segment) + 2) + segment + made[4 + jfif :]


def _end_of_scan(data: bytes, at: int) -> int:
    """Find where the entropy-coded bytes from `at` end: at the next marker that is none of theirs."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        if data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
            at += 2
        else:
            return at
    return len(data)


def _all_there(data: bytes) -> bool:
    """Tell whether a JPEG without its end shows the same whatever follows."""
    import numpy as np
    from PIL import Image

    shown = []
    for after in (b"", NOISE):
        try:
            with Image.open(io.BytesIO(data + after + b"\xff\xd9"), formats=["JPEG"]) as image:
                shown.append(np.asarray(image).reshape(image.height, image.width, -1))
        except DECODER_ERRORS:
            return False
    changed = int((shown[0] != shown[1]).any(axis=2).sum())
    pixels = shown[0].shape[0] * shown[0].shape[1]
    return changed <= max(CHANGED_SHARE * pixels, min(CHANGED_BLOCK, BLOCK_SHARE * pixels))
