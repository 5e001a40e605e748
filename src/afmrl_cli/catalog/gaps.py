"""What people and programs write where there is nothing: `N/A`, `unknown`, `keine`, `#VALUE!`, `\\N`, `-`.

A gap is no value, wherever it stands: in the catalog, in labels, in training targets, in proposed schemas and in what a
generator answers.
"""

from __future__ import annotations

import re
from functools import lru_cache

WORDS = {
    # programs
    *("null", "none", "nil", "nan", "nat", "undefined", "#n/a n/a", "#null", "#nv", "#wert", "#bezug", "#valor"),
    *("#value", "#ref", "#name", "#div/0", "#num", "#n/a", "#na", "#nd", "#error", "#field", "#spill", "#calc", "\\n"),
    # English
    *("n/a", "na", "n.a", "n.a.", "n / a", "not applicable", "not available", "not specified", "not given"),
    *("not known", "cannot be determined", "can't be determined", "not determinable", "not visible", "not found"),
    *("not set", "no value", "no data", "no info", "no information", "does not apply", "unknown", "unspecified"),
    *("to be determined", "to be announced", "tbd", "tba", "tbc", "exempt"),
    # German, Dutch
    *("keine", "kein", "keiner", "keines", "k.a", "k. a", "k.a.", "k. a.", "keine angabe", "keine angaben"),
    *("unbekannt", "nicht verfügbar", "nicht vorhanden", "nicht zutreffend", "nicht bekannt", "entfällt"),
    *("ohne angabe", "trifft nicht zu", "nicht angegeben", "onbekend", "geen", "n.v.t", "nvt", "niet van toepassing"),
    *("niet beschikbaar", "niet opgegeven"),
    # French, Spanish, Portuguese, Italian
    *("inconnu", "inconnue", "aucun", "aucune", "non renseigné", "non renseignée", "non applicable", "non disponible"),
    *("sans objet", "non spécifié", "néant", "n/d", "n.d", "n.d.", "n/c", "s/d", "s/n", "desconocido"),
    *("desconocida", "ninguno", "ninguna", "no aplica", "no aplicable", "no disponible", "sin datos"),
    *("sin especificar", "no especificado", "desconhecido", "desconhecida", "nenhum", "nenhuma"),
    *("não aplicável", "não se aplica", "não disponível", "não informado"),
    *("sem informação", "sconosciuto", "sconosciuta", "nessuno", "nessuna"),
    *("non disponibile", "non applicabile", "non specificato"),
    # Swedish, Norwegian, Danish, Finnish
    *("okänd", "okänt", "saknas", "ingen", "inget", "inga", "ej tillgänglig", "ej tillgängligt", "ej tillämplig"),
    *("ej angivet", "uppgift saknas", "ukjent", "ukendt", "mangler", "ikke tilgjengelig", "ikke tilgængelig"),
    *("ikke relevant", "ikke angivet", "ikke oppgitt", "tuntematon", "ei tiedossa", "ei saatavilla", "ei mitään"),
    # Polish, Czech, Slovak, Hungarian, Romanian, Turkish
    *("brak", "nie dotyczy", "nieznany", "nieznana", "nieznane", "niedostępny", "brak danych", "neznámý", "neznámá"),
    *("neznámé", "neuvedeno", "žádný", "žádná", "není k dispozici", "neuvedené", "ismeretlen", "nincs", "nincs adat"),
    *("necunoscut", "nespecificat", "indisponibil", "bilinmiyor", "yok", "belirtilmemiş", "mevcut değil"),
    # Greek, Russian, Ukrainian, Arabic, Hebrew, Japanese, Chinese, Korean
    *("άγνωστο", "μη διαθέσιμο", "нет", "неизвестно", "не указано", "не указан", "нет данных", "н/д", "отсутствует"),
    *("невідомо", "немає", "غير متوفر", "غير معروف", "لا يوجد", "לא ידוע", "אין", "不明", "なし", "無し", "未定"),
    *("該当なし", "无", "無", "未知", "暂无", "不详", "没有", "없음", "알 수 없음", "해당 없음"),
}  # fmt: skip
LONGEST = max(map(len, WORDS)) + 8
AROUND = " \t\r\n\u00a0\u200b\ufeff()[]<>{}'\"`*:;,!.?"
"""What may stand around such a word: (null), <NA>, "n/a"., #VALUE!"""
STROKES = re.compile(r"[-\u2010-\u2015_.?*|~\s\u00a0]*|[/\\]")
"""Dashes, dots and question marks alone."""


def is_gap(text: str) -> bool:
    """Tell whether `text` says that there is no value; it does when it is empty."""
    return len(text) <= LONGEST and _is_gap(text)


@lru_cache(maxsize=1 << 14)
def _is_gap(text: str) -> bool:
    folded = " ".join(text.casefold().split())
    return folded in WORDS or folded.strip(AROUND) in WORDS or STROKES.fullmatch(folded) is not None


def filled(text: str) -> str:
    """Return `text`, or "" when it is a gap; of several values between | those that are none."""
    if "|" not in text:
        return "" if is_gap(text) else text
    parts = text.split("|")
    kept = [part for part in parts if not part.strip() or not is_gap(part)]
    return text if len(kept) == len(parts) else "|".join(kept)
