"""The description of the interface (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .. import __version__
from .requests import PHOTO, MarkRequest, SearchRequest, VerdictRequest

ERRORS = {
    "400": "The body can't be read, or the Host is not the service's.",
    "401": "The token is missing or wrong.",
    "403": "Sent by another site's page.",
    "404": "No such listing or photo.",
    "413": "The body is too large, or the photo has too many pixels.",
    "415": "Neither JSON nor a form, or a file that is no photo.",
    "422": "A query that can't be: nothing in it, an unknown filter, a damaged photo.",
    "429": "Too many wrong tokens.",
    "503": "No vectors yet, or too many searches at a time; Retry-After says when to try again.",
}


def description() -> dict[str, Any]:
    """Return the description as a document."""
    listing_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
    size = {"name": "size", "in": "query", "schema": {"type": "string", "enum": ["small", "large"]}}
    written = {"name": "filter", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
    counts = {name: {"type": "integer"} for name in ("queries", "right", "wrong", "same", "different")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "afmrl serve", "version": __version__, "summary": "Search in one catalog."},
        "paths": {
            "/search": {"post": _operation("Search by text, photo, both, likeness or change.", "Found", SearchRequest)},
            "/products/{id}": {"get": _operation("What is known of a listing.", "Product", parameters=[listing_id])},
            "/photos/{id}/{number}": {"get": _photo([listing_id, number, size])},
            "/filters": {"get": _operation("Values to filter by, with counts.", "Filters", parameters=[written])},
            "/marks": {
                "get": _operation("How many marks there are.", "Counts"),
                "post": _operation("Mark a result of a query as right or wrong.", "Counts", MarkRequest),
            },
            "/marks/of": {"post": _operation("The marks of a query's results.", "Marks", SearchRequest)},
            "/verdicts": {"post": _operation("Say whether two listings are one product.", "Counts", VerdictRequest)},
            "/duplicates": {"get": _operation("Pairs of the last `afmrl dedupe` to review.", "Review")},
            "/healthz": {"get": _operation("Whether searches are answered (200) or not (503).", "Health")},
            "/version": {"get": _operation("What is served.", "Version")},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Found": _object(FOUND, ["schema", "catalog", "embedder", "question", "hits"]),
                "Hit": _object(HIT, ["rank", "score", "id", "title", "images", "attributes"]),
                "Product": _object(PRODUCT, ["schema", "id", "title", "images", "fields"]),
                "Filters": _object(FILTERS, ["listings", "filters"]),
                "Counts": _object(counts, list(counts)),
                "Marks": _object({"marks": {"type": "object", "additionalProperties": {"type": "boolean"}}}, ["marks"]),
                "Review": _object({"pairs": {"type": "array"}, "found": {"type": "integer"}}, ["pairs", "found"]),
                "Health": _object({"status": {"enum": ["ok", "no vectors"]}}, ["status"]),
                "Version": _object(VERSION, ["afmrl", "listings"]),
                "Error": _object({"error": _object(ERROR, ["message", "hint", "status"])}, ["schema", "error"]),
            },
        },
        "security": [{}, {"token": []}],
    }


TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}
NUMBER: dict[str, Any] = {"type": "number"}
PAIRS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
SHARES: dict[str, Any] = {"type": "object", "additionalProperties": NUMBER}
HITS: dict[str, Any] = {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}}
FOUND: dict[str, Any] = {
    "schema": {"const": "afmrl.search/1"},
    "catalog": TEXT,
    "embedder": TEXT,
    "question": {"type": "object"},
    "hits": HITS,
    "beside": {"type": "object", "description": "The same document of the other embedder, where both were wanted."},
    "weights": {"type": ["object", "null"], "additionalProperties": NUMBER, "description": "Of the parts that rank."},
    "tuned": {**TEXT, "description": "By what the weights were chosen."},
    "reranked": {"type": ["object", "null"]},
    "notes": TEXTS,
}
HIT: dict[str, Any] = {
    "rank": {"type": "integer"},
    "score": NUMBER,
    "cosine": {**NUMBER, "description": "Of the vectors of query and product."},
    "shares": {**SHARES, "description": "What each part adds to the score."},
    "others": {"type": ["integer", "null"], "description": "How many more of its product or style are results."},
    "id": TEXT,
    "title": TEXT,
    "brand": TEXT,
    "price": TEXT,
    "link": TEXT,
    "attributes": PAIRS,
    "matching": TEXTS,
    "words": TEXTS,
    "why": TEXT,
    "same": {"type": ["number", "null"]},
    "confidence": SHARES,
    "changed": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "images": {**TEXTS, "description": "Addresses below the service's own."},
}
PRODUCT: dict[str, Any] = {
    "schema": {"const": "afmrl.product/1"},
    **{name: HIT[name] for name in ("id", "title", "brand", "price", "link", "attributes", "confidence", "images")},
    "text": TEXT,
    "fields": PAIRS,
}
COUNTED = {"type": "object", "properties": {"value": TEXT, "count": {"type": "integer"}}}
FILTERS: dict[str, Any] = {
    "listings": {"type": "integer"},
    "filters": {
        "type": "array",
        "items": {"type": "object", "properties": {"key": TEXT, "values": {"type": "array", "items": COUNTED}}},
    },
    "price": {
        "type": ["object", "null"],
        "properties": {"key": TEXT, "least": NUMBER, "most": NUMBER},
        "description": "The column of prices, and its range.",
    },
}
VERSION: dict[str, Any] = {
    "afmrl": TEXT,
    "catalog": TEXT,
    "embedder": {"type": ["string", "null"]},
    "beside": {"type": ["string", "null"], "description": "The other embedder."},
    "vectors": {"type": ["string", "null"]},
    "listings": {"type": "integer"},
    "stale": {"type": ["integer", "null"]},
    "problem": {"type": ["string", "null"]},
    "searching": {"type": "integer"},
    "queue": {"type": "integer"},
}
ERROR: dict[str, Any] = {"message": TEXT, "hint": TEXT, "status": {"type": "integer"}}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _operation(
    summary: str, answer: str, body: type[BaseModel] | None = None, parameters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": summary, "content": content}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation["responses"] |= {code: {"description": said, "content": error} for code, said in ERRORS.items()}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": _bodies(body)}
    return operation


def _bodies(body: type[BaseModel]) -> dict[str, Any]:
    as_json = body.model_json_schema()
    bodies = {"application/json": {"schema": as_json}}
    if issubclass(body, SearchRequest):
        files = {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}}
        form = {**as_json, "properties": {**as_json["properties"], PHOTO: files}}
        bodies["multipart/form-data"] = {"schema": form}
    return bodies


def _photo(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    operation = _operation("A photo of a listing, as JPEG.", "Health", parameters=parameters)
    operation["responses"]["200"] = {"description": "The photo.", "content": {"image/jpeg": {}}}
    return operation
