"""Signatures of QStash's requests: a JSON Web Token over the address and the bytes of the body.

The official check is not used: it can allow for no skew of clocks and takes no body that is not UTF-8.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jwt import PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError

from rowvec.domain.errors import ConfigurationError, SignatureRefusedError

ALGORITHM: Final = "HS256"
ISSUER: Final = "Upstash"
LEEWAY_SECONDS: Final = 60.0

# The one spelling of each token: a decoder that is lenient takes several for the same signature.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_JWS: Final = PyJWS()


class UnknownKeyError(SignatureRefusedError):
    """A signature in good form, by a key that is not known here."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that holds.

    Attributes:
        id: names it, for the log.
        key: it was made with.
    """

    id: str
    key: str


def verify(  # noqa: PLR0913 - all that a signature is about
    token: str, keys: Collection[str], url: str, body: bytes, now: float, leeway_seconds: float = LEEWAY_SECONDS
) -> Signature:
    """Return a signature that holds.

    Args:
        token: the header `Upstash-Signature`.
        keys: those that it may be made with, in the order in which they are tried.
        url: the address that was published to, exactly.
        body: the raw bytes.
        now: seconds since the epoch.
        leeway_seconds: how far the clocks may differ.

    Raises:
        SignatureRefusedError: it does not hold; UnknownKeyError when it is only made with none of the keys.
        ConfigurationError: a key is empty, so that anybody could sign with it.
    """
    if not all(keys):
        raise ConfigurationError("A signing key is empty.", "Set QSTASH_CURRENT_SIGNING_KEY, QSTASH_NEXT_SIGNING_KEY.")
    if not _TOKEN.fullmatch(token):
        raise SignatureRefusedError("The signature is no token.")
    for key in keys:
        if (payload := _open(token, key)) is not None:
            claims = _read(payload)
            _check_claims(claims, url, body)
            _check_times(claims, now, leeway_seconds)
            return Signature(str(claims.get("jti", "")), key)
    raise UnknownKeyError("The signature is of a key that is not known.")


def body_hash(body: bytes) -> str:
    """Return how a token speaks of a body: SHA-256 in base64url, without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")


def _open(token: str, key: str) -> bytes | None:
    """Return the signed bytes; None when another key was used."""
    try:
        return bytes(_JWS.decode(token, key, algorithms=[ALGORITHM]))
    except InvalidSignatureError:
        return None
    except PyJWTError as error:
        raise SignatureRefusedError("The signature is in no form of ours.", str(error)) from None


def _read(payload: bytes) -> Mapping[str, Any]:
    try:
        claims = json.loads(payload)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise SignatureRefusedError("The signature holds no claims.")
    return claims


def _check_claims(claims: Mapping[str, Any], url: str, body: bytes) -> None:
    if claims.get("iss") != ISSUER:
        raise SignatureRefusedError("The signature is of another issuer.", repr(claims.get("iss")))
    if claims.get("sub") != url:
        raise SignatureRefusedError("The signature is for another address.", f"{claims.get('sub')!r}, not {url!r}")
    signed = claims.get("body")
    if not isinstance(signed, str) or signed.rstrip("=") != body_hash(body):
        raise SignatureRefusedError("The signature is for another body.")


def _check_times(claims: Mapping[str, Any], now: float, leeway_seconds: float) -> None:
    expires, begins = _time(claims, "exp"), _time(claims, "nbf")
    issued = _time(claims, "iat") if "iat" in claims else begins
    if now - leeway_seconds >= expires:
        raise SignatureRefusedError("The signature has expired.", f"{now - expires:.0f} s ago by this clock")
    if max(begins, issued) > now + leeway_seconds:
        early = max(begins, issued) - now
        raise SignatureRefusedError("The signature is not valid yet.", f"for {early:.0f} s by this clock")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SignatureRefusedError("The signature lacks a time.", name)
    return value
