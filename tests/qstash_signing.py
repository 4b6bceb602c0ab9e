"""Signs requests as QStash does, and as those do who are not QStash."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Final

CURRENT: Final = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT: Final = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
"""Those of the official development server, which everybody knows."""
HASHES: Final = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def claims_of(url: str, body: bytes, now: float | None = None, /, **others: object) -> dict[str, object]:
    """What QStash claims; others take their place, and None takes one away."""
    issued = int(time.time() if now is None else now)
    claims: dict[str, object] = {
        "iss": "Upstash",
        "sub": url,
        "exp": issued + 300,
        "nbf": 0,
        "iat": issued,
        "jti": "jwt_test",
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
        **others,
    }
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims: object, key: str = CURRENT, algorithm: str = "HS256", named: str = "") -> str:
    """Return a token; with the algorithm `none` its signature is empty. It may name another than it is made with."""
    header = _segment({"alg": named or algorithm, "typ": "JWT"})
    text = f"{header}.{_segment(claims)}"
    if algorithm == "none":
        return f"{text}."
    return f"{text}.{_base64(hmac.digest(key.encode(), text.encode(), HASHES[algorithm]().name))}"


def signature(url: str, body: bytes, key: str = CURRENT, now: float | None = None, /, **others: object) -> str:
    """Return the header `Upstash-Signature` of a request."""
    return signed(claims_of(url, body, now, **others), key)


def _segment(value: object) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
