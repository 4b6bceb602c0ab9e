"""How long chaos lasts, and what it draws.

ROWVEC_CHAOS_SECONDS says how long (15), ROWVEC_CHAOS_SEED repeats the draws of a run; its seed is printed.
"""

from __future__ import annotations

import os
import random

SECONDS = float(os.environ.get("ROWVEC_CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("ROWVEC_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)


def drawn(name: object) -> random.Random:
    """The dice of one part of a test."""
    return random.Random(f"{SEED} {name}")  # noqa: S311 - not a secret
