"""Titles, descriptions and search queries for garments, in varied words and with attributes left out."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .garment import KEYS, Garment

BRANDS: tuple[str, ...] = (
    "Aldermoor", "Bryelle", "Cottonhaus", "Dunvik", "Elvestad", "Farrowby", "Granlund", "Hollinder", "Ivarsson & Co",
    "Juniper Vale", "Kestrel Row", "Lindqvist", "Marlowe Thread", "Norrsken", "Oakhem", "Pellworth", "Quillane",
    "Rosengård", "Solbacka", "Tamsin Grey", "Umbra Linen", "Vattnäs", "Wexcombe", "Ystad Works",
)  # fmt: skip
"""Invented brands."""

DEPARTMENTS: dict[str, str] = {
    "dress": "Dresses",
    "blouse": "Tops",
    "t-shirt": "Tops",
    "hoodie": "Tops",
    "coat": "Outerwear",
    "trousers": "Bottoms",
    "shorts": "Bottoms",
    "skirt": "Bottoms",
}
"""What stands in a shop's category column: as in real shops, coarser than what the product is."""

_SAID: dict[str, dict[str, tuple[str, ...]]] = {
    "category": {
        "dress": ("dress", "frock"),
        "blouse": ("blouse", "shirt blouse"),
        "t-shirt": ("t-shirt", "tee"),
        "hoodie": ("hoodie", "hooded sweatshirt"),
        "coat": ("coat", "overcoat"),
        "trousers": ("trousers", "pants"),
        "shorts": ("shorts", "short trousers"),
        "skirt": ("skirt",),
    },
    "colour": {
        "black": ("black", "jet black"),
        "white": ("white", "snow white"),
        "grey": ("grey", "gray"),
        "navy": ("navy", "dark blue", "navy blue"),
        "light blue": ("light blue", "sky blue"),
        "teal": ("teal", "petrol"),
        "green": ("green", "grass green"),
        "red": ("red", "bright red"),
        "burgundy": ("burgundy", "wine red", "maroon"),
        "pink": ("pink", "rose pink"),
        "purple": ("purple", "violet"),
        "yellow": ("yellow", "sunny yellow"),
        "orange": ("orange", "tangerine"),
        "brown": ("brown", "chocolate brown"),
        "beige": ("beige", "sand"),
    },
    "pattern": {
        "solid": ("plain", "solid", "one-colour"),
        "striped": ("striped", "stripy"),
        "checked": ("checked", "plaid", "chequered"),
        "dotted": ("dotted", "polka dot", "spotted"),
        "floral": ("floral", "flowered", "flower print"),
        "colour-block": ("colour-block", "two-tone", "color block"),
    },
    "neckline": {
        "round": ("a round neckline", "a round neck", "a crew neck"),
        "v-neck": ("a v-neck", "a v-shaped neckline"),
        "square": ("a square neckline", "a square neck"),
        "collar": ("a collar", "a pointed collar"),
        "high": ("a high neck", "a turtleneck", "a high collar band"),
    },
    "sleeve": {
        "sleeveless": ("no sleeves", "bare arms"),
        "short": ("short sleeves",),
        "long": ("long sleeves", "full-length sleeves"),
    },
    "shape": {
        "wide": ("a wide leg", "wide legs"),
        "straight": ("a straight leg", "straight legs"),
        "tapered": ("a tapered leg", "tapered legs"),
        "pencil": ("a pencil shape", "a narrow cut"),
        "flared": ("a flared shape", "a flared cut"),
        "pleated": ("pleats", "a pleated shape"),
    },
    "length": {
        "mini": ("a mini length", "a mini hem"),
        "knee": ("a knee length", "a knee-length hem"),
        "maxi": ("a maxi length", "an ankle-length hem"),
        "cropped": ("a cropped length", "a cropped cut"),
        "regular": ("a regular length", "a hip length"),
        "long": ("a long cut", "a long length"),
        "short": ("a short length", "a short cut"),
    },
    "closure": {
        "none": ("no fastening", "no closure"),
        "buttons": ("buttons", "a button front", "large buttons"),
        "zip": ("a zip", "a zipper", "a front zip"),
    },
    "pocket": {
        "none": ("no pockets",),
        "patch": ("a patch pocket", "a chest pocket"),
        "kangaroo": ("a kangaroo pocket",),
        "cargo": ("cargo pockets", "cargo side pockets"),
    },
    "belt": {
        "none": ("no belt",),
        "buckle": ("a buckle belt", "a belt with a buckle"),
        "tie": ("a tie belt", "a bow at the waist", "a tied sash"),
    },
}

_OPENERS = (
    "A {} for every day.", "Our {} for the new season.", "Comfortable {} in a soft fabric.", "This {} is easy to wear.",
    "A favourite {}, made to last.", "{} from our studio collection.", "You will reach for this {} again and again.",
    "Light {} that goes with everything.", "Well made {} at a fair price.",
)  # fmt: skip
_DETAILS = (
    "It has {}.", "Comes with {}.", "Made with {}.", "Designed with {}.", "Featuring {}.", "Look for {}.",
    "Cut with {}.",
)  # fmt: skip
_FILLERS = (
    "Machine wash at 30 degrees.", "Soft cotton blend.", "True to size.", "Free returns within 30 days.",
    "Designed in Malmö.", "100% organic cotton.", "Wash with similar colours.",
    "Model is 178 cm tall and wears size M.",
    "Recycled polyester.", "Do not tumble dry.", "Ships in two days.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wording:
    """A listing's words, and the attributes that they state (in the order of `KEYS`)."""

    title: str
    description: str
    stated: dict[str, str]


def _say(key: str, value: str, rng: Random) -> str:
    return rng.choice(_SAID[key][value])


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _accented(pattern: str, accent: str, rng: Random) -> str:
    return rng.choice((f"{pattern} in {accent}", f"{accent} {pattern}", f"{pattern} with {accent}"))


def _phrases(attributes: dict[str, str], keys: list[str], rng: Random) -> list[str]:
    return [_say(key, attributes[key], rng) for key in keys]


def _mentioned(attributes: dict[str, str], rng: Random, leave_out: float) -> set[str]:
    """Return which attributes a listing names: always the category, never all."""
    mentioned = {"category"}
    for key, value in attributes.items():
        if rng.random() >= (0.93 if value == "none" else leave_out):
            mentioned.add(key)
    if "pattern" not in mentioned:
        mentioned.discard("accent")
    if len(mentioned) == len(attributes):
        mentioned.discard(rng.choice([key for key in KEYS if key in mentioned and key not in ("category", "pattern")]))
    return mentioned


def listing_words(garment: Garment, rng: Random, brand: str, leave_out: float = 0.5) -> Wording:
    """Return a title and a description that name some of the attributes; each is left out with the chance `leave_out`.

    An absent detail ("no belt") is hardly ever written, as shops hardly ever do.
    """
    attributes = garment.attributes()
    mentioned = _mentioned(attributes, rng, leave_out)
    noun = _say("category", garment.category, rng)
    front: list[str] = []
    if "colour" in mentioned:
        front.append(_say("colour", garment.colour, rng))
    if "pattern" in mentioned and "accent" not in mentioned:
        front.append(_say("pattern", garment.pattern, rng))
    extras = [key for key in KEYS[4:] if key in mentioned]
    rng.shuffle(extras)
    in_title = [key for key in extras if rng.random() < 0.35][:2]
    below = [key for key in extras if key not in in_title]

    named = " ".join([*front, noun])
    if in_title:
        named += f" {rng.choice(('with', 'with', 'featuring'))} {_list(_phrases(attributes, in_title, rng))}"
    title = rng.choice((f"{brand} {named}", named, f"{named} by {brand}", f"{named} - {brand}"))
    sentences = []
    if rng.random() < 0.7:
        sentences.append(rng.choice(_OPENERS).format(noun))
    if "accent" in mentioned:
        pattern = _accented(_say("pattern", garment.pattern, rng), garment.accent, rng)
        sentences.append(rng.choice(("The fabric is {}.", "Pattern: {}.", "Fabric {}.")).format(pattern))
    while below:
        count = rng.randint(1, 3)
        sentences.append(rng.choice(_DETAILS).format(_list(_phrases(attributes, below[:count], rng))))
        below = below[count:]
    if rng.random() < 0.5:
        sentences.append(rng.choice(_FILLERS))
    stated = {key: value for key, value in attributes.items() if key in mentioned}
    return Wording(_capital(title), " ".join(_capital(s) for s in sentences), stated)


def query_words(garment: Garment, rng: Random, least: int = 3, most: int = 5) -> tuple[str, dict[str, str]]:
    """Return a shopper's query ("navy striped dress with long sleeves") and the attributes that it names.

    Beside the category it names between `least` and `most` of them, if the garment has as many that are not "none".
    """
    attributes = garment.attributes()
    keys = [key for key in KEYS[1:] if attributes.get(key, "none") != "none" and key != "accent"]
    if rng.random() < 0.85:  # shoppers nearly always name the colour
        keys.remove("colour")
        keys = ["colour", *rng.sample(keys, k=min(len(keys), rng.randint(least, most) - 1))]
    else:
        keys = rng.sample(keys, k=min(len(keys), rng.randint(least, most)))
    front = [_say("colour", garment.colour, rng)] if "colour" in keys else []
    named = {"category", *keys}
    if "pattern" in keys:
        pattern = _say("pattern", garment.pattern, rng)
        if garment.accent and rng.random() < 0.4:
            pattern = f"{garment.accent} {pattern}"
            named.add("accent")
            front.append(pattern if not front else f"and {pattern}")
        else:
            front.append(pattern)
    words = " ".join([*front, _say("category", garment.category, rng)])
    meant = {key: value for key, value in attributes.items() if key in named}
    details = [key for key in keys if key not in ("colour", "pattern")]
    rng.shuffle(details)
    if not details:
        return words, meant
    phrases = _phrases(attributes, details, rng)
    if rng.random() < 0.5:
        phrases = [phrase.removeprefix("a ").removeprefix("an ") for phrase in phrases]
    return f"{words} {rng.choice(('with', 'with', ','))} {_list(phrases)}".replace(" ,", ","), meant


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
