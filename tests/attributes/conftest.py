"""Property tests are judged by what they find: how long an example takes depends on who else is at work here."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("afmrl", deadline=None)
hypothesis.settings.load_profile("afmrl")
