"""Qwen-VL bases and what is done with them."""

import logging

# On CPUs with AVX-512 bitsandbytes asks, at import, for a kernel package that nothing here needs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
