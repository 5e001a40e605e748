"""Which keys and values a shop allows, and the strict validation of what a generator answered.

Keys and values are compared without regard to case, spacing, hyphens and underscores, and written back as the schema
spells them (keys in lower case, as attribute text has them). Whatever a product's text talks a model into, an answer
outside the schema never passes `read_answer`, so it never reaches the store as attributes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..settings import AttributeSettings, SchemaKey
from .chatter import says_nothing
from .parse import Failure, InvalidAttributes, parse_attributes, write_attributes

NOT_SEEN = "unknown"
"""What a server's model may answer instead of an allowed value; a gap, like all that `chatter.says_nothing` knows."""


@dataclass(frozen=True)
class AttributeSchema:
    """The keys of `[attributes.keys]`, in their order; none of them means that any pairs are welcome."""

    keys: Mapping[str, SchemaKey]

    @classmethod
    def from_settings(cls, settings: AttributeSettings) -> AttributeSchema:
        """Return the schema with its keys as attribute text has them; UsageError when a key or value can't be
        written.
        """
        keys: dict[str, SchemaKey] = {}
        seen: dict[str, str] = {}
        for name, entry in settings.keys.items():
            key = " ".join(name.lower().split())
            if (other := seen.get(folded(key))) is not None:
                raise UsageError(f"attributes.keys.{name}: the same key as {other}", "rename one of them")
            seen[folded(key)] = name
            values = [" ".join(value.split()) for value in entry.values]
            _check_writable(name, key, values)
            keys[key] = entry.model_copy(update={"values": values})
        return cls(keys)

    def keys_for(self, category: str) -> dict[str, SchemaKey]:
        """Return the keys that apply to a product of this category: no categories, or its beginning."""
        wanted = folded(category)
        return {
            key: entry
            for key, entry in self.keys.items()
            if not entry.categories or any(wanted.startswith(folded(prefix)) for prefix in entry.categories)
        }

    def prompt_text(self, category: str) -> str:
        """Return the sentences for the prompt that name keys and values; "" when no key applies."""
        keys = self.keys_for(category)
        if not keys:
            return ""
        return f"Use only these keys: {'; '.join(_key_text(key, entry) for key, entry in keys.items())}."

    def json_schema(self, category: str) -> dict[str, Any]:
        """Return the answer as JSON schema, for servers that can hold a model to one.

        It has only what vLLM, llama.cpp, Ollama and LM Studio all take: objects, arrays, strings and lists of texts. So
        no number of properties, no union of types and no null: every key is required (servers differ on optional ones),
        and what is not seen is NOT_SEEN, or an empty list.
        """
        keys = self.keys_for(category)
        if not keys:
            return {"type": "object", "additionalProperties": {"type": "string"}}
        return {
            "type": "object",
            "properties": {key: _property(entry) for key, entry in keys.items()},
            "required": list(keys),
            "additionalProperties": False,
        }

    def check(self, attributes: Mapping[str, str], category: str) -> dict[str, str]:
        """Return `attributes` in the schema's spelling; InvalidAttributes ("outside schema", "repeated key") otherwise.

        Where no key applies to the category, everything passes as it is.
        """
        keys = self.keys_for(category)
        if not keys:
            return dict(attributes)
        spelled = {folded(key): key for key in keys}
        checked: dict[str, str] = {}
        for written, value in attributes.items():
            key = spelled.get(folded(written))
            if key is None:
                raise InvalidAttributes("outside schema", f"no key {written!r}")
            if key in checked:
                raise InvalidAttributes("repeated key", f"{key!r} stands twice")
            checked[key] = _spelled_value(key, keys[key], value)
        return checked

    def without_gaps(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Return `attributes` without values that say that nothing was seen, such as N/A, but where the schema
        allows them.
        """
        allowed = {folded(key): {folded(value) for value in entry.values} for key, entry in self.keys.items()}
        kept = {}
        for key, value in attributes.items():
            known = allowed.get(folded(key), set())
            parts = [value] if folded(value) in known else value.split(", ")
            if left := ", ".join(part for part in parts if folded(part) in known or not says_nothing(part)):
                kept[key] = left
        return kept


def read_answer(
    text: str, cut_off: bool, schema: AttributeSchema, category: str, settings: AttributeSettings
) -> tuple[str, None] | tuple[None, Failure]:
    """Read an answer as (attribute text, None) in the schema's spelling, or (None, why it is invalid).

    The one validation: of generation, of training targets, and of RAR's rewards.
    """
    try:
        return write_attributes(validated(text, cut_off, schema, category, settings)), None
    except InvalidAttributes as error:
        return None, error.failure


def validated(
    text: str, cut_off: bool, schema: AttributeSchema, category: str, settings: AttributeSettings
) -> dict[str, str]:
    """Read as `read_answer`, but return pairs, and raise InvalidAttributes, whose message says which part is wrong."""
    if cut_off:
        raise InvalidAttributes("cut off", f"no end within {settings.max_new_tokens} new tokens")
    seen = schema.without_gaps(parse_attributes(text, max_pairs=len(text)))
    if len(seen) > settings.max_pairs:
        raise InvalidAttributes("too many pairs", f"{len(seen)} pairs, at most {settings.max_pairs}")
    found = schema.check(seen, category)
    if len(found) < settings.min_pairs:
        raise InvalidAttributes("too few pairs", f"{len(found)} pairs, at least {settings.min_pairs}")
    return found


def folded(text: str) -> str:
    """Fold keys and values as they are compared: `Neck_Type` and `neck-type` are `neck type`; a minus sign stays."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", plain)


def _spelled_value(key: str, entry: SchemaKey, value: str) -> str:
    if not entry.values:
        return value
    spelled = {folded(allowed): allowed for allowed in entry.values}
    if (whole := spelled.get(folded(value))) is not None:
        return whole
    if entry.multiple:
        parts = [spelled.get(folded(part)) for part in value.split(",")]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return ", ".join(dict.fromkeys(known))
    raise InvalidAttributes("outside schema", f"{key}: no value {value[:60]!r}")


def _key_text(key: str, entry: SchemaKey) -> str:
    name = f"{key}, {entry.description}" if entry.description else key
    values = ", ".join(entry.values)
    return f"{name} ({'several of: ' if entry.multiple and values else ''}{values})" if values else name


def _property(entry: SchemaKey) -> dict[str, Any]:
    described = {"description": entry.description} if entry.description else {}
    if entry.multiple:
        items = {"type": "string", "enum": list(entry.values)} if entry.values else {"type": "string"}
        return {"type": "array", "items": items, **described}
    if entry.values:
        return {"type": "string", "enum": list(dict.fromkeys([*entry.values, NOT_SEEN])), **described}
    return {"type": "string", **described}


def _check_writable(name: str, key: str, values: list[str]) -> None:
    """Refuse an allowed pair that does not survive being written and read, or no answer could ever pass."""
    where = f"attributes.keys.{name}"
    for value in values or ["x"]:
        try:
            same = parse_attributes(write_attributes({key: value})) == {key: value}
        except InvalidAttributes as error:
            raise UsageError(f"{where}: {error}", "neither ';' nor ': ' fits into keys and values") from error
        if not same:
            raise UsageError(f"{where}: {value!r} can't be a value", "it must not end with a full stop")
    plain = [folded(value) for value in values]
    for i, value in enumerate(plain):
        if value in plain[:i]:
            other = values[plain.index(value)]
            raise UsageError(f"{where}: {values[i]!r} is the same value as {other!r}", "leave one of them out")
