"""Attribute text: schema, prompt, parser, generation."""
