"""Which columns hold photos, by their names and by what stands in them: a main one, and all with further ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from .column_names import COMMON, words_of
from .content import LINK, Sample, are_photos
from .name_forms import forms
from .photo_cells import image_cells

PHOTO_WORDS = words_of(
    "image images img imgs imgurl photo photos picture pictures pic pics picurl bild bilder foto fotos imagen "
    "imagenes imagem imagens immagine immagini afbeelding afbeeldingen billede billeder bilde kuva kuvat zdjecie "
    "zdjecia obraz obrazek obrazky obrazok poza resim gorsel фото изображение изображения картинка 画像 图片 图像 "
    "이미지 صورة صور gallery galerie galeria galleria"
)
WRITTEN_TOGETHER = ("画像", "图片", "图像", "圖片", "이미지")
"""Words of languages that write without blanks."""
NO_PHOTO_WORDS = words_of(
    "alt label labels title titel text sort position order is id ids count width height size caption type date "
    "hash style description desc color colour thumbnail thumb thumbs small swatch icon status name names visible "
    "license tag tags sku opis beschreibung"
)
SMALLER = words_of("thumbnail thumb thumbs small swatch icon mini preview vorschau vignette miniatur miniature")
"""Words of columns that hold the main photo once more."""
NUMBERED_PHOTO = re.compile(r"(oxpic|imgurl_alternative|(product_)?image|photo|picture|pic|bild|foto)_?\d*")
MORE_PHOTOS = words_of(
    "additional more extra other others alternate alternative gallery weitere zusatz zusatzliche second secondary "
    "back side detail all urls links hosted list autres otras altre mas "
)
SEVERAL_PHOTOS = words_of("images photos pictures imgs bilder fotos imagenes imagens immagini zdjecia obrazky")
DIGITS = re.compile(r"\d+")


def holds_images(name: str) -> bool:
    """Tell whether a column of this name holds photos."""
    written = forms(name)
    if written.plain in COMMON["image"] or written.bare in COMMON["image"] or NUMBERED_PHOTO.fullmatch(written.plain):
        return True
    words = [word.rstrip("0123456789") for word in written.bare.replace("file_name", "file").split("_")]
    named = not PHOTO_WORDS.isdisjoint(words) or any(word in written.bare for word in WRITTEN_TOGETHER)
    return named and NO_PHOTO_WORDS.isdisjoint(words)


def are_smaller(name: str) -> bool:
    """Tell whether a column of this name holds smaller copies of the main photo."""
    return not SMALLER.isdisjoint(forms(name).plain.split("_"))


def photo_columns(names: Sequence[str], free: Sequence[int], sample: Sample) -> tuple[int, ...]:
    """Return one main column of photos (a path rather than a link), and all that hold further ones."""
    named = [i for i in free if holds_images(names[i])]
    sure = [i for i in named if sample.rows == 0 or sample.empty(i) or are_photos(sample.cells[i])]
    fitting = sure or [i for i in named if _rank(names[i]) < 1000]
    if not fitting:
        return ()
    stems = Counter(_stem(names[i]) for i in fitting)
    further = {i for i in fitting if _further(names[i]) or stems[_stem(names[i])] > 1 or _several(sample, i)}
    main = min(fitting, key=lambda i: (sample.empty(i), _links(sample, i), _further(names[i]), _rank(names[i]), i))
    if _further(names[main]):
        return tuple(sorted(further | {main}))
    return (main, *sorted(further - {main}))


def _links(sample: Sample, i: int) -> bool:
    """Tell whether column `i` holds links; paths of photos are there at once."""
    return any(LINK.match(cell) for cell in sample.cells[i][:1])


def _rank(name: str) -> int:
    """Return how surely a column of this name holds the main photo: the lower, the surer; below 1000 for common
    names.
    """
    known = COMMON["image"]
    written = forms(name)
    if written.plain in known:
        return known.index(written.plain)
    return 1000 + known.index(written.bare) if written.bare in known else 2000


def _stem(name: str) -> str:
    """Return the name with # for its numbers, as columns of one row of photos share it; the name alone for one
    without.
    """
    return DIGITS.sub("#", forms(name).plain)


def _several(sample: Sample, i: int) -> bool:
    """Tell whether cells of column `i` name several photos each: a gallery."""
    return any(len(image_cells(cell, "")) > 1 for cell in sample.cells[i])


def _further(name: str) -> bool:
    """Tell whether a column of photos of this name holds further ones, beside one with the main photo."""
    written = forms(name)
    words = {word.rstrip("0123456789") for word in written.plain.split("_")}
    several = written.bare in COMMON["image"] and not SEVERAL_PHOTOS.isdisjoint(words)
    numbers = DIGITS.findall(written.plain)
    return several or bool(numbers and numbers[-1] != "1") or not MORE_PHOTOS.isdisjoint(words)
