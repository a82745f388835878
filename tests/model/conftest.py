from __future__ import annotations

from hypothesis import settings

# A machine that runs containers beside the tests pauses them at will: no deadline per example.
settings.register_profile("perijove", deadline=None)
settings.load_profile("perijove")
