"""Draws photos of garments: same garment, another photo_seed, another pose, background and light.

All lengths are shares of the picture's width, so a photo of 448 pixels shows what one of 112 shows. Whatever carries
an attribute is at least five pixels large at 112: a tiny model learns large buttons and never learns small ones.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from .garment import RGB, Garment
from .texture import cloth, main_colour, shade

Point = tuple[float, float]

_HEM = {
    "dress": {"mini": 0.60, "knee": 0.78, "maxi": 0.97},
    "blouse": {"": 0.68},
    "t-shirt": {"cropped": 0.46, "regular": 0.66, "long": 0.86},
    "hoodie": {"cropped": 0.52, "regular": 0.70, "long": 0.90},
    "coat": {"short": 0.60, "knee": 0.78, "maxi": 0.97},
    "trousers": {"cropped": 0.68, "long": 0.95},
    "shorts": {"short": 0.38, "knee": 0.56},
    "skirt": {"mini": 0.42, "knee": 0.64, "maxi": 0.92},
}
_WAIST = 0.50
_CLOSER = {"shorts": 1.3, "skirt": 1.13, "trousers": 1.06}
"""Small garments are photographed from nearer; always the same for a category, so that length can be seen."""
_TOPS = ("dress", "blouse", "t-shirt", "hoodie", "coat")


def _hem(garment: Garment) -> float:
    return _HEM[garment.category][garment.length]


class _Drawing:
    """One upright garment on its cloth, with the mask that cuts it out; x = 0 is its middle, y = 0 the top."""

    def __init__(self, garment: Garment, size: int) -> None:
        self.garment, self.size = garment, size
        self.colour = main_colour(garment)
        bright = sum(self.colour) / 3
        self.line: RGB = shade(self.colour, 0.5) if bright > 75 else shade(self.colour, 1.4)
        self.trim: RGB = shade(self.colour, 0.72) if bright > 75 else shade(self.colour, 1.22)
        self.inside: RGB = shade(self.colour, 0.4) if bright > 75 else shade(self.colour, 1.3)
        self.contrast: RGB = (250, 250, 246) if bright < 150 else (26, 22, 24)
        start = 0.12 if garment.category in _TOPS else 0.06
        self.image = cloth(garment, size, start + 0.6 * (_hem(garment) - start))
        self.mask = Image.new("L", (size, size), 0)
        self.on_image, self.on_mask = ImageDraw.Draw(self.image), ImageDraw.Draw(self.mask)

    def points(self, points: list[Point]) -> list[Point]:
        return [((x + 0.5) * self.size, y * self.size) for x, y in points]

    def cut(self, points: list[Point]) -> None:
        """Cut part of the silhouette: cloth shows here, with an outline."""
        at = self.points(points)
        self.on_mask.polygon(at, fill=255)
        self.on_image.line([*at, at[0]], fill=self.line, width=self.width(0.012), joint="curve")

    def sew(self, points: list[Point], fill: RGB, outline: RGB | None = None, width: float = 0.012) -> None:
        """Sew a piece of another material on top."""
        at = self.points(points)
        self.on_mask.polygon(at, fill=255)
        self.on_image.polygon(at, fill=fill)
        if outline:
            self.on_image.line([*at, at[0]], fill=outline, width=self.width(width), joint="curve")

    def stroke(self, points: list[Point], fill: RGB, width: float) -> None:
        at = self.points(points)
        self.on_image.line(at, fill=fill, width=self.width(width), joint="curve")

    def disc(self, x: float, y: float, radius: float, fill: RGB, outline: RGB) -> None:
        (left, top), (right, bottom) = self.points([(x - radius, y - radius), (x + radius, y + radius)])
        self.on_mask.ellipse((left, top, right, bottom), fill=255)
        self.on_image.ellipse((left, top, right, bottom), fill=fill, outline=outline, width=self.width(0.008))

    def width(self, share: float) -> int:
        return max(1, round(share * self.size))


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _mirrored(points: list[Point]) -> list[Point]:
    """Return a left half, top to bottom, completed to a symmetric outline."""
    return points + [(-x, y) for x, y in reversed(points)]


def _sides(points: list[Point]) -> tuple[list[Point], list[Point]]:
    return points, [(-x, y) for x, y in points]


def _draw_sleeves(d: _Drawing, sleeve: str, body: float, flare: float) -> None:
    if sleeve == "short":
        for side in _sides([(-0.16, 0.13), (-0.20, 0.14), (-0.345, 0.30), (-0.26, 0.375), (-body, 0.30)]):
            d.cut(side)
    elif sleeve == "long":
        for side in _sides([(-0.16, 0.13), (-0.20, 0.14), (-0.40 - flare, 0.60), (-0.29, 0.635), (-body, 0.31)]):
            d.cut(side)


def _draw_top(d: _Drawing) -> None:
    """Draw body, sleeves and what marks the category: dress and blouse have a waist, hoodie a hood, coat an
    open edge.
    """
    garment, hem = d.garment, _hem(d.garment)
    kind = garment.category
    sleeve = garment.sleeve or "long"
    shoulder = -0.155 if sleeve == "sleeveless" else -0.20
    if kind == "hoodie":
        hood = [(-0.17, 0.15), (-0.17, 0.03), (-0.09, -0.05), (0.09, -0.05), (0.17, 0.03), (0.17, 0.15)]
        d.sew(hood, d.trim, d.line)
        d.sew([(0.62 * x, 0.02 + 0.75 * y) for x, y in hood], d.inside)
    body = {"dress": 0.165, "blouse": 0.175, "t-shirt": 0.195, "hoodie": 0.22, "coat": 0.225}[kind]
    _draw_sleeves(d, sleeve, body, 0.03 if kind in ("coat", "hoodie") else 0.0)
    half: list[Point] = [(-0.08, 0.10), (shoulder, 0.14), (-body, 0.31)]
    if kind == "dress":
        spread = 0.16 + 0.34 * (hem - _WAIST)
        half += [(-0.13, _WAIST), (-spread - 0.06, hem)]
    elif kind == "blouse":
        half += [(-0.135, 0.48), (-0.235, hem)]
    elif kind == "coat":
        half += [(-body + 0.01, _WAIST), (-body - 0.12 * (hem - 0.4), hem)]
    else:
        half += [(-body, hem)]
    d.cut(_mirrored(half))
    _draw_marks(d, body, sleeve, hem)


def _draw_marks(d: _Drawing, body: float, sleeve: str, hem: float) -> None:
    """Draw waist seams, cuffs, a hoodie's band, a coat's open edge."""
    kind = d.garment.category
    if kind == "dress":
        d.stroke([(-0.13, _WAIST), (0.13, _WAIST)], d.line, 0.014)
    elif kind == "blouse":
        d.stroke([(-0.135, 0.48), (0.135, 0.48)], d.line, 0.014)
        if sleeve == "long":
            for cuff in _sides([(-0.41, 0.56), (-0.405, 0.62), (-0.28, 0.655), (-0.265, 0.60)]):
                d.sew(cuff, d.trim, d.line)
    elif kind == "hoodie":
        d.sew(_box(-body, hem - 0.05, body, hem + 0.01), d.trim, d.line)
        for cuff in _sides([(-0.44, 0.55), (-0.435, 0.61), (-0.28, 0.65), (-0.265, 0.59)]):
            d.sew(cuff, d.trim, d.line)
    elif kind == "coat":
        d.stroke([(0.0, 0.14), (0.0, hem)], d.line, 0.02)


def _draw_neckline(d: _Drawing, neckline: str) -> None:
    band = 0.022
    if neckline == "round":
        curve = [(0.105 * math.cos(a), 0.10 + 0.11 * math.sin(a)) for a in np.linspace(0, math.pi, 12).tolist()]
        d.sew([(-0.105, 0.085), *reversed(curve), (0.105, 0.085)], d.inside)
        d.stroke(curve, d.contrast, band)
    elif neckline == "v-neck":
        d.sew([(-0.10, 0.085), (0.10, 0.085), (0.0, 0.31)], d.inside)
        d.stroke([(-0.10, 0.09), (0.0, 0.31), (0.10, 0.09)], d.contrast, band)
    elif neckline == "square":
        d.sew(_box(-0.115, 0.085, 0.115, 0.215), d.inside)
        d.stroke([(-0.115, 0.09), (-0.115, 0.215), (0.115, 0.215), (0.115, 0.09)], d.contrast, band)
    elif neckline == "collar":
        d.sew([(-0.06, 0.08), (0.06, 0.08), (0.0, 0.15)], d.inside)
        for side in _sides([(-0.085, 0.055), (0.0, 0.155), (-0.085, 0.235), (-0.15, 0.12)]):
            d.sew(side, d.contrast, d.line)
    elif neckline == "high":
        d.sew(_box(-0.085, 0.0, 0.085, 0.125), d.trim, d.line)
        d.stroke([(-0.085, 0.0), (0.085, 0.0)], d.contrast, band)
        d.stroke([(-0.085, 0.065), (0.085, 0.065)], d.line, 0.012)


def _draw_bottom(d: _Drawing) -> None:
    """Draw trousers, shorts, skirts; the waistband is cloth of the main colour."""
    garment, hem = d.garment, _hem(d.garment)
    if garment.category == "skirt":
        reach = hem - 0.10
        spread = {"pencil": 0.15, "flared": 0.17 + 0.36 * reach, "pleated": 0.17 + 0.17 * reach}[garment.shape]
        d.cut(
            _mirrored(
                [
                    (-0.13, 0.10),
                    (-0.165, 0.10 + 0.3 * reach) if garment.shape == "pencil" else (-0.13, 0.11),
                    (-spread, hem),
                ]
            )
        )
        if garment.shape == "pleated":
            for n in range(-3, 4):
                d.stroke([(n * 0.038, 0.13), (n * 2 * spread / 8, hem)], d.line, 0.016)
        d.sew(_box(-0.132, 0.085, 0.132, 0.13), d.trim, d.line)
        return
    if garment.category == "trousers":
        inner, outer = {"wide": (0.03, 0.36), "straight": (0.055, 0.22), "tapered": (0.06, 0.145)}[garment.shape]
        hip = 0.19
    else:
        inner, outer, hip = 0.04, 0.25, 0.2
    reach = (hem - 0.06) / 0.89
    outer = hip + (outer - hip) * (reach if garment.category == "trousers" else 1.0)
    for leg in _sides([(0.0, 0.06), (-0.16, 0.06), (-hip, 0.26), (-outer, hem), (-inner, hem), (0.0, 0.30)]):
        d.cut(leg)
    d.sew(_box(-0.162, 0.045, 0.162, 0.09), d.trim, d.line)


def _draw_closure(d: _Drawing, closure: str, top: float, bottom: float) -> None:
    if closure == "buttons":
        d.sew(_box(-0.05, top, 0.05, bottom), d.colour, d.line)
        count = max(2, min(5, int((bottom - top) / 0.095)))
        for n in range(count):
            d.disc(0.0, top + (bottom - top) * (n + 0.5) / count, 0.031, d.contrast, d.line)
    elif closure == "zip":
        d.sew(_box(-0.034, top, 0.034, bottom), (188, 192, 198), (40, 40, 44), 0.016)
        y = top + 0.03
        while y < bottom - 0.01:
            d.stroke([(-0.03, y), (0.03, y)], (60, 60, 66), 0.014)
            y += 0.045
        d.sew(_box(-0.03, top, 0.03, top + 0.085), (240, 200, 70), (40, 40, 44))


def _draw_pocket(d: _Drawing, pocket: str) -> None:
    if pocket == "patch":
        d.sew([(0.04, 0.29), (0.165, 0.29), (0.165, 0.40), (0.1025, 0.44), (0.04, 0.40)], d.trim, d.contrast, 0.02)
    elif pocket == "kangaroo":
        low = _hem(d.garment) - 0.055
        points = _mirrored([(-0.10, low - 0.15), (-0.175, low - 0.05), (-0.175, low)])
        d.sew(points, d.trim, d.contrast, 0.02)
    elif pocket == "cargo":
        for side in _sides(_box(-0.20, 0.20, -0.075, 0.34)):
            d.sew(side, d.trim, d.contrast, 0.02)


def _draw_belt(d: _Drawing, belt: str, y: float, half: float) -> None:
    if belt == "buckle":
        leather: RGB = (92, 54, 26) if d.garment.colour not in ("brown", "burgundy", "black") else (208, 168, 110)
        d.sew(_box(-half, y - 0.032, half, y + 0.032), leather, (30, 20, 12))
        d.sew(_box(-0.055, y - 0.05, 0.055, y + 0.05), (246, 206, 84), (60, 40, 10))
        d.sew(_box(-0.022, y - 0.02, 0.022, y + 0.02), leather)
    elif belt == "tie":
        d.sew(_box(-half, y - 0.024, half, y + 0.024), d.contrast, d.line)
        knot = -0.08 if d.garment.category == "skirt" else 0.0  # beside a skirt's buttons, not over them
        for side in _sides([(0.0, y), (-0.10, y - 0.05), (-0.10, y + 0.045)]):
            d.sew([(x + knot, y) for x, y in side], d.contrast, d.line)
        for tail in _sides([(0.0, y), (-0.08, y + 0.17), (-0.025, y + 0.19)]):
            d.sew([(x + knot, y) for x, y in tail], d.contrast, d.line)


def _draw_badge(d: _Drawing) -> None:
    """Draw a little mark that no attribute names: by it the very garment differs from one with the same
    attributes.
    """
    rng = Random(f"badge {d.garment.seed}")
    kind = rng.choice(("none", "disc", "square", "bar", "none"))
    colour = rng.choice(((240, 60, 60), (60, 120, 240), (250, 220, 60), (40, 170, 90), d.contrast))
    x, y = (-0.10, 0.36) if d.garment.category in _TOPS else (rng.choice((-0.11, 0.11)), 0.155)
    if kind == "disc":
        d.disc(x, y, 0.03, colour, d.line)
    elif kind == "square":
        d.sew(_box(x - 0.028, y - 0.028, x + 0.028, y + 0.028), colour, d.line)
    elif kind == "bar":
        d.sew(_box(x - 0.045, y - 0.014, x + 0.045, y + 0.014), colour, d.line)


def draw_garment(garment: Garment, size: int) -> Image.Image:
    """Return the garment upright on nothing: an RGBA picture of `size` pixels, cut out."""
    d = _Drawing(garment, size)
    hem = _hem(garment)
    if garment.category in _TOPS:
        _draw_top(d)
        _draw_badge(d)
        top = {"v-neck": 0.32, "square": 0.225, "round": 0.215, "collar": 0.17}.get(garment.neckline, 0.135)
        bottom = hem - (0.05 if garment.category == "hoodie" else 0.01)
        _draw_pocket(d, garment.pocket)
        _draw_closure(d, garment.closure, top, bottom)
        _draw_neckline(d, garment.neckline)
        _draw_belt(d, garment.belt, _WAIST, 0.145 if garment.category == "dress" else 0.225)
    else:
        _draw_bottom(d)
        _draw_badge(d)
        _draw_pocket(d, garment.pocket)
        _draw_closure(d, garment.closure, 0.135, hem - 0.01)
        y = 0.1075 if garment.category == "skirt" else 0.0675
        _draw_belt(d, garment.belt, y, 0.14 if garment.category == "skirt" else 0.165)
    d.image.putalpha(d.mask)
    return d.image


def _background(rng: Random, size: int) -> Image.Image:
    base = [rng.randint(120, 246) for _ in range(3)]
    grey = sum(base) / 3
    tone = [int(grey + (value - grey) * 0.45) for value in base]
    corners = Image.new("RGB", (2, 2))
    corners.putdata([tuple(max(0, min(255, v + rng.randint(-22, 22))) for v in tone) for _ in range(4)])
    image = corners.resize((size, size), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.4:  # a floor
        y = rng.uniform(0.7, 0.95) * size
        draw.rectangle((0, y, size, size), fill=tuple(max(0, v - rng.randint(15, 50)) for v in tone))
    for _ in range(rng.choice((0, 0, 1, 2, 3))):  # clutter, mostly at the sides
        x, y = rng.choice((rng.uniform(-0.05, 0.15), rng.uniform(0.85, 1.05))) * size, rng.random() * size
        w, h = rng.uniform(0.04, 0.16) * size, rng.uniform(0.04, 0.2) * size
        fill = tuple(rng.randint(40, 240) for _ in range(3))
        if rng.random() < 0.5:
            draw.ellipse((x - w, y - h, x + w, y + h), fill=fill)
        else:
            draw.rectangle((x - w, y - h, x + w, y + h), fill=fill)
    return image


def _soft(rng: Random, cells: int, low: int, size: int) -> Image.Image:
    """Return a smooth grey field between `low` and 255: light falling unevenly, folds in the cloth."""
    small = Image.new("L", (cells, cells))
    small.putdata([rng.randint(low, 255) for _ in range(cells * cells)])
    field = small.resize((size, size), Image.Resampling.BICUBIC)
    return Image.merge("RGB", (field, field, field))


def render_photo(garment: Garment, photo_seed: int, size: int = 448) -> Image.Image:
    """Return one photo of the garment, `size` pixels square; the same arguments give the same pixels."""
    rng = Random(f"photo {garment.seed} {garment.colour} {photo_seed}")
    canvas = size * 2 if size < 400 else size  # drawn larger and reduced: PIL draws without antialiasing
    layer = draw_garment(garment, canvas)
    alpha = layer.getchannel("A")
    box = alpha.getbbox() or (0, 0, canvas, canvas)
    folded = ImageChops.multiply(layer.convert("RGB"), _soft(rng, 6, 205, canvas))
    layer = Image.merge("RGBA", (*folded.split(), alpha))

    scale = rng.uniform(0.84, 1.02) * _CLOSER.get(garment.category, 1.0)
    angle = math.radians(rng.gauss(0.0, 4.0))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    to_x, to_y = (0.5 + rng.uniform(-0.045, 0.045)) * canvas, (0.5 + rng.uniform(-0.03, 0.03)) * canvas
    from_x, from_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    a, b, c, e = cos * flip, sin * flip, -sin, cos
    pose = (a, b, from_x - a * to_x - b * to_y, c, e, from_y - c * to_x - e * to_y)
    layer = layer.transform((canvas, canvas), Image.Transform.AFFINE, pose, Image.Resampling.BILINEAR)

    photo = _background(rng, canvas)
    if rng.random() < 0.6:  # a shadow on the wall behind
        dark = layer.getchannel("A").point([round(v * 0.35) for v in range(256)])
        offset = (round(rng.uniform(-0.03, 0.03) * canvas), round(rng.uniform(0.0, 0.03) * canvas))
        photo.paste((40, 40, 50), offset, dark)
    photo.paste(layer, (0, 0), layer)
    photo = ImageChops.multiply(photo, _soft(rng, 2, 205, canvas))
    exposure = rng.uniform(0.88, 1.14)
    table: list[int] = []
    for _ in range(3):
        gain = exposure * rng.uniform(0.96, 1.04)
        table += [min(255, round(v * gain + 4)) for v in range(256)]
    photo = photo.point(table)
    if canvas != size:
        photo = photo.resize((size, size), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0.0, rng.uniform(1.0, 4.0), (size, size, 1))
    pixels = np.asarray(photo, dtype=np.float32) + noise.astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
