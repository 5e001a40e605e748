"""The request about each product, and how its answer is read: template, schema and language together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog.product import Product, product_text
from ..errors import UsageError
from ..settings import AttributeSettings
from ..store.files import hash_json
from .chatter import chatter
from .parse import Failure, read_stored
from .prompt import DEFAULT_TEMPLATE, attribute_prompt
from .request import Generation, Request
from .schema import AttributeSchema, read_answer

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..catalog.pictures import Picture


@dataclass(frozen=True)
class AttributeTask:
    """The task for every product of a catalog. `load_task` makes it."""

    settings: AttributeSettings
    schema: AttributeSchema
    template: str

    @property
    def id(self) -> str:
        """Hash all that changes answers or their validity but the model itself and what it is shown.

        Attributes are stored by it: another template, schema or temperature is another text, the old one stays.
        """
        settings = self.settings
        parts = {
            "template": self.template,
            "schema": {key: entry.model_dump() for key, entry in self.schema.keys.items()},
            "order": list(self.schema.keys),
            "language": settings.language,
            "pairs": [settings.min_pairs, settings.max_pairs],
            "max_new_tokens": settings.max_new_tokens,
            "sampling": [settings.temperature, settings.top_p, settings.seed] if settings.temperature > 0 else "greedy",
        }
        if settings.agreement != "together":
            parts["agreement"] = settings.agreement
        return hash_json(parts)[:16]

    def request(self, product: Product, images: Sequence[Image | Picture]) -> Request:
        """Return the request for `product` with its opened photos."""
        return self.request_for(product_text(product), product.category, images)

    def request_for(self, text: str, category: str, images: Sequence[Image | Picture]) -> Request:
        """Return the request for what is shown: product text, category and photos, any of which may be empty."""
        prompt = attribute_prompt(text, self.schema.prompt_text(category), self.settings.language, self.template)
        return Request(prompt, tuple(images), self.schema.json_schema(category), text)

    def read(self, answer: Generation, product: Product) -> tuple[str, None] | tuple[None, Failure]:
        """Return `answer` as (attribute text, None), or (None, why it is invalid)."""
        text, failure = read_answer(answer.text, answer.cut_off, self.schema, product.category, self.settings)
        if text is None:
            return None, failure or "unparsable"
        # Where any key is welcome, an error or an apology may look like a pair.
        if not self.schema.keys_for(product.category) and chatter(read_stored(text)):
            return None, "unparsable"
        return text, None


def load_task(settings: AttributeSettings, root: Path) -> AttributeTask:
    """Load the task that the settings mean; a template's path is relative to `root`, the catalog's folder.

    Raises UsageError when the template can't be read or has no `{product}`, or the schema can't be used.
    """
    return AttributeTask(settings, AttributeSchema.from_settings(settings), _template(settings.template, root))


def _template(name: str, root: Path) -> str:
    if not name:
        return DEFAULT_TEMPLATE
    file = root / name
    hint = "attributes.template names a text file that holds {product}, and perhaps {schema} and {language}"
    try:
        if root.resolve() not in file.resolve().parents:  # what it holds is sent to the model, endpoints too
            raise UsageError(f"{file}: lies outside of the catalog's folder", "copy it there")
        template = file.read_text("utf-8-sig").strip()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, a NUL in the name
        reason = getattr(error, "strerror", None) or ("not UTF-8 text" if isinstance(error, UnicodeError) else error)
        raise UsageError(f"{str(file)[:400]}: {reason}", hint) from error
    if "{product}" not in template:
        raise UsageError(f"{file}: no {{product}} in it", hint)
    return template
