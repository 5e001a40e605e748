"""What looks like personal data, so that it is named on reading and neither stored nor shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..catalog.column_names import words_of
from ..catalog.content import share
from ..catalog.name_forms import plain
from ..catalog.problems import clipped

EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}\.\w{2,}")
PHONE = re.compile(r"(?:\+|00?)[1-9][\d\s()/.-]{6,18}\d")
NAMES = words_of(
    "email mail emails phone telephone phonenumber telefon telefonnummer telefono telefone tel mobile mobil "
    "handy fax address address1 address2 addr adresse anschrift direccion endereco indirizzo adres adress "
    "street strasse straße rue calle rua via straat gata gatan housenumber hausnummer zip zipcode postcode "
    "postal plz ort stadt city town ville ciudad cidade citta plaats firstname lastname fullname surname "
    "vorname nachname familienname prenom apellido apellidos sobrenome cognome voornaam achternaam fornavn "
    "etternavn efternavn fornamn efternamn birthday birthdate dob geburtsdatum geburtstag company firma iban "
    "ip username login note notes kommentar anmerkung имя фамилия телефон адрес почта 姓名 氏名 住所 電話 "
    "電話番号 电话 地址 邮箱 이름 주소 전화번호"
)
"""Words of column names that say it."""
PERSONS = words_of(
    "first last full middle given family billing shipping delivery customer client kunde kunden kundenname "
    "user buyer recipient empfanger besteller ship bill contact"
)
"""Beside one of these `name` is a person's."""
NAME = words_of("name names nom nombre nome naam namn navn")
ONE_IN = 0.5
MOST_CHARS = 500
LETTERS, DIGITS = re.compile(r"[^\W\d_]"), re.compile(r"\d")


def looks_private(text: str) -> bool:
    """Tell whether `text` holds an e-mail address or a phone number."""
    return ("@" in text and EMAIL.search(text[:MOST_CHARS]) is not None) or PHONE.fullmatch(text.strip()) is not None


def is_private_column(name: str, cells: Sequence[str]) -> bool:
    """Tell whether a column holds names, addresses, e-mails or phone numbers of people, by its name or its cells."""
    words = frozenset(plain(name).split("_"))
    if not words.isdisjoint(NAMES) or (not words.isdisjoint(NAME) and not words.isdisjoint(PERSONS)):
        return True
    return bool(cells) and share(cells, looks_private) >= ONE_IN


def shape(text: str) -> str:
    """Return how a cell is written, without what it says: 2024-05-01 is 0000-00-00."""
    return clipped(DIGITS.sub("0", LETTERS.sub("a", text[:MOST_CHARS])), 40)


def harmless(text: str) -> str:
    """Return a name from the file for messages; of what looks like personal data only its form."""
    return shape(text) if looks_private(text) else clipped(text, 40)
