"""What Postgres keeps of a text."""

from __future__ import annotations

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Return a text without the characters that Postgres refuses: 0 and halves of others.

    Args:
        text: whatever it is.
    """
    return _UNSTORABLE.sub("", text)
