"""The shop's own columns as attribute text: what a listing's attributes are by the catalog itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..catalog.product import Product
from .parse import clean_value, write_attributes
from .schema import AttributeSchema, folded

if TYPE_CHECKING:
    from ..catalog.read import Catalog


def own_columns(wanted: Sequence[str], schema: AttributeSchema, catalog: Catalog) -> dict[str, str]:
    """Return keys of attribute text by the names in `Product.given` of the columns that are attributes, {} for none.

    Those that are `wanted`; else those named like a key of the schema; without a schema all attr_*. Some exports have
    attributes that no column is named by (`catalog.own_attributes`): those are found row by row.
    """
    columns = catalog.columns
    given = [key for _, key in columns.given]
    if wanted:
        short = {key: key for key in given} | {columns.names[i]: key for i, key in columns.given}
        chosen = [short.get(name, name) for name in wanted]
    elif schema.keys:
        keys = {folded(key) for key in schema.keys}
        chosen = list(schema.keys) if catalog.own_attributes else [key for key in given if folded(key) in keys]
    else:
        chosen = [key for i, key in columns.given if columns.names[i] != key]
    spelled = {folded(key): key for key in schema.keys}
    return {key: spelled.get(folded(key)) or " ".join(key.replace("_", " ").lower().split()) for key in chosen}


def own_text(product: Product, columns: Mapping[str, str]) -> str:
    """Return what the shop's `columns` (of `own_columns`) say of a product, "" for nothing."""
    given = {folded(name): value for name, value in product.given.items()}
    return pairs_text({key: given.get(folded(name), "") for name, key in columns.items()})


def pairs_text(pairs: Mapping[str, str]) -> str:
    """Return attribute text of pairs whose several values stand between |."""
    values = {key: clean_value(value.replace("|", ", ")) for key, value in pairs.items()}
    return write_attributes({key: value for key, value in values.items() if value})
