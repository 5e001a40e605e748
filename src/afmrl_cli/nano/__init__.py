"""The built-in default: example shops and the small model trained on them."""
