"""The generator's prompt: one template, for generation, SFT and RAR alike."""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_TEMPLATE = (
    "{product}\n"
    "What sets this product apart from near-identical ones? Answer in one line, key: value; key: value, "
    "with 3 to 8 short attributes that are shown or stated.{schema}{language}"
)
"""`{product}` is the product text, `{schema}` and `{language}` are empty or a sentence that starts with a space."""


def attribute_prompt(product_text: str, schema: str = "", language: str = "", template: str = DEFAULT_TEMPLATE) -> str:
    """Return the user's turn for one product; the pictures go before this text in the same turn.

    `schema` is the text of `AttributeSchema.prompt_text(category)`, `language` a language's name ("Swedish").
    Braces inside the product's own text are left alone: the template is filled by replacement, not by format().
    """
    parts = {
        "{schema}": f" {schema}" if schema else "",
        "{language}": f" Write in {language}." if language else "",
        "{product}": product_text,
    }
    # One pass over the template, so that a product whose text holds "{schema}" can't inject anything.
    out, rest = [], template
    while rest:
        found: Sequence[tuple[int, str]] = [(rest.find(name), name) for name in parts if name in rest]
        if not found:
            out.append(rest)
            break
        at, name = min(found)
        out += [rest[:at], parts[name]]
        rest = rest[at + len(name) :]
    return "".join(out).strip()


def chat_messages(prompt: str, images: int) -> list[dict[str, object]]:
    """Return the conversation for a chat template: `images` picture slots, then the prompt, in one user turn."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in range(images)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
