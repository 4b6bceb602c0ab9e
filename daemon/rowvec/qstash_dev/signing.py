"""The signature of a delivery."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

import jwt

TOKEN: Final = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="  # noqa: S105 - public
CURRENT_KEY: Final = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT_KEY: Final = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
"""The credentials that the official development server has: its documentation names them, so everybody knows them."""
LIFE_SECONDS: Final = 300


@dataclass(slots=True)
class Keys:
    """The signing keys: the current one signs, the next one will after a rotation."""

    current: str = CURRENT_KEY
    next: str = NEXT_KEY

    def rotate(self) -> None:
        """Sign with the next key from now on."""
        self.current, self.next = self.next, new_key()


def new_key() -> str:
    """Return a key that nobody has."""
    return f"sig_{secrets.token_hex(14)}"


def sign(key: str, url: str, body: bytes, issued: float, *, padded: bool = True) -> str:
    """Return the signature of one attempt, a JWT by HS256.

    Args:
        key: its UTF-8 bytes are the secret.
        url: the destination exactly as it was published.
        body: the raw body.
        issued: in unix seconds.
        padded: whether the hash of the body keeps its `=`, as in the documentation.
    """
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
    claims = {
        "iss": "Upstash",
        "sub": url,
        "exp": int(issued) + LIFE_SECONDS,
        "nbf": 0,  # since September 2024, because of skewed clocks
        "iat": int(issued),
        "jti": f"jwt_{secrets.token_hex(14)}",
        "body": digest if padded else digest.rstrip("="),
    }
    return jwt.encode(claims, key, algorithm="HS256")
