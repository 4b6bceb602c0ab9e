"""Signatures of requests: the published vectors, and everything that is not one."""

from __future__ import annotations

import json
import string
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstash_signing import CURRENT, NEXT, claims_of, signature, signed
from rowvec.domain.errors import ConfigurationError, SignatureRefusedError
from rowvec.qstash.signature import LEEWAY_SECONDS, Signature, UnknownKeyError, body_hash, verify

URL: Final = "https://app.example.com/webhooks/qstash"
ISSUED: Final = 1_700_000_000.0
EXPIRES: Final = ISSUED + 300
KEYS: Final = (CURRENT, NEXT)
BODY: Final = b'{"hello":"world"}'
VECTORS: Final = {
    "V1": (
        CURRENT,
        BODY,
        (
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJVcHN0YXNoIiwic3ViIjoiaHR0cHM6Ly9hcHAuZXhhbXBsZS5jb20"
            "vd2ViaG9va3MvcXN0YXNoIiwiZXhwIjoxNzAwMDAwMzAwLCJuYmYiOjAsImlhdCI6MTcwMDAwMDAwMCwianRpIjoiand0X3ZlY3R"
            "vcl9WMSIsImJvZHkiOiJrNkk1Y2FrVTVlckw4S2pTVVZUTm93bkR3Y2N2dTVrVTFIeGc4OHRvRllnPSJ9.mF7Cva8Yw4GTOBsFZ5"
            "doIpoE1BhYI2MCkJ0qKIQEyKc"
        ),
    ),
    "V2": (
        NEXT,
        BODY,
        (
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJVcHN0YXNoIiwic3ViIjoiaHR0cHM6Ly9hcHAuZXhhbXBsZS5jb20"
            "vd2ViaG9va3MvcXN0YXNoIiwiZXhwIjoxNzAwMDAwMzAwLCJuYmYiOjAsImlhdCI6MTcwMDAwMDAwMCwianRpIjoiand0X3ZlY3R"
            "vcl9WMiIsImJvZHkiOiJrNkk1Y2FrVTVlckw4S2pTVVZUTm93bkR3Y2N2dTVrVTFIeGc4OHRvRllnPSJ9.rZ759hB1oJ5EQZ06Rn"
            "5NiI7T8mqh4p0_9RCJNtI2Enk"
        ),
    ),
    "V3": (
        CURRENT,
        b"",
        (
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJVcHN0YXNoIiwic3ViIjoiaHR0cHM6Ly9hcHAuZXhhbXBsZS5jb20"
            "vd2ViaG9va3MvcXN0YXNoIiwiZXhwIjoxNzAwMDAwMzAwLCJuYmYiOjAsImlhdCI6MTcwMDAwMDAwMCwianRpIjoiand0X3ZlY3R"
            "vcl9WMyIsImJvZHkiOiI0N0RFUXBqOEhCU2EtX1RJbVctNUpDZXVRZVJrbTVOTXBKV1pHM2hTdUZVPSJ9.rb47KtNRVxTIndeJof"
            "W0sJerKhhsLjq61lSVNaEP9xk"
        ),
    ),
    "V5": (
        CURRENT,
        b"\xff\xfe\x00",
        (
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJVcHN0YXNoIiwic3ViIjoiaHR0cHM6Ly9hcHAuZXhhbXBsZS5jb20"
            "vd2ViaG9va3MvcXN0YXNoIiwiZXhwIjoxNzAwMDAwMzAwLCJuYmYiOjAsImlhdCI6MTcwMDAwMDAwMCwianRpIjoiand0X3ZlY3R"
            "vcl9WNSIsImJvZHkiOiJ1bmVNQW1FQWpJOXhya0JoclFGaV84dm1PMUxKSDRueU5uT0JNZEVoZnNjPSJ9.hTV-ojuJKgzFCfghIN"
            "rUfsoDQoNl86JBZXrhs5urlps"
        ),
    ),
}


def check(token: str, body: bytes = BODY, *, now: float = ISSUED, url: str = URL) -> Signature:
    return verify(token, KEYS, url, body, now)


def refused(token: str, body: bytes = BODY, *, now: float = ISSUED, url: str = URL) -> str:
    with pytest.raises(SignatureRefusedError) as caught:
        check(token, body, now=now, url=url)
    return caught.value.message


@pytest.mark.parametrize("now", [ISSUED, EXPIRES])
@pytest.mark.parametrize("vector", VECTORS)
def test_the_published_vectors_hold(vector: str, now: float) -> None:
    key, body, token = VECTORS[vector]
    assert check(token, body, now=now) == Signature(f"jwt_vector_{vector}", key)


def test_a_vector_is_what_the_signer_of_the_tests_makes() -> None:
    assert check(signature(URL, BODY, CURRENT, ISSUED)).key == CURRENT
    assert check(signature(URL, b"", NEXT, ISSUED), b"").key == NEXT


@pytest.mark.parametrize("padding", ["", "="])
def test_the_hash_of_the_body_may_be_padded(padding: str) -> None:
    token = signature(URL, BODY, CURRENT, ISSUED, body=body_hash(BODY) + padding)
    assert check(token).id == "jwt_test"


def test_clocks_may_differ_a_little() -> None:
    token = signature(URL, BODY, CURRENT, ISSUED, nbf=int(ISSUED))
    assert check(token, now=ISSUED - LEEWAY_SECONDS).key == CURRENT
    assert refused(token, now=ISSUED - LEEWAY_SECONDS - 1) == "The signature is not valid yet."
    assert check(token, now=EXPIRES + LEEWAY_SECONDS - 1).key == CURRENT
    assert refused(token, now=EXPIRES + LEEWAY_SECONDS) == "The signature has expired."
    with pytest.raises(SignatureRefusedError, match="not valid yet"):
        verify(token, KEYS, URL, BODY, ISSUED - 1, leeway_seconds=0.0)


def test_an_issue_in_the_future_is_refused_without_a_beginning() -> None:
    token = signature(URL, BODY, CURRENT, ISSUED, nbf=0)
    assert refused(token, now=ISSUED - LEEWAY_SECONDS - 1) == "The signature is not valid yet."


@pytest.mark.parametrize(
    "other",
    [
        URL + "/",
        URL.replace("https", "http"),
        URL.replace("app.", "App."),
        URL + "?a=b",
        URL.removesuffix("qstash"),
        URL.replace("example.com", "example.com:443"),
    ],
)
def test_it_is_for_one_address_alone(other: str) -> None:
    assert refused(signature(URL, BODY, CURRENT, ISSUED), url=other) == "The signature is for another address."
    assert refused(signature(other, BODY, CURRENT, ISSUED)) == "The signature is for another address."


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], b"", b'{"hello": "world"}', BODY.upper()])
def test_it_is_for_one_body_alone(body: bytes) -> None:
    assert refused(signature(URL, BODY, CURRENT, ISSUED), body) == "The signature is for another body."


@pytest.mark.parametrize("issuer", [None, "upstash", "Upstash ", "", 1, ["Upstash"]])
def test_another_issuer_is_refused(issuer: object) -> None:
    assert refused(signature(URL, BODY, CURRENT, ISSUED, iss=issuer)) == "The signature is of another issuer."


@pytest.mark.parametrize("claim", ["sub", "exp", "nbf", "body"])
@pytest.mark.parametrize("value", [None, True, "soon", [], {}])
def test_a_claim_that_is_missing_or_no_claim_is_refused(claim: str, value: object) -> None:
    refused(signature(URL, BODY, CURRENT, ISSUED, **{claim: value}))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(value: float) -> None:
    assert refused(signature(URL, BODY, CURRENT, ISSUED, exp=value)) == "The signature lacks a time."


@pytest.mark.parametrize("key", ["sig_of_somebody_else_entirely_32b", CURRENT[:-1], CURRENT.upper()])
def test_an_unknown_key_is_told_from_everything_else(key: str) -> None:
    with pytest.raises(UnknownKeyError):
        check(signature(URL, BODY, key, ISSUED))


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512"])
def test_no_other_algorithm_is_taken(algorithm: str) -> None:
    assert refused(signed(claims_of(URL, BODY, ISSUED), CURRENT, algorithm)) == "The signature is no token."
    lying = signed(claims_of(URL, BODY, ISSUED), CURRENT, "HS256", named=algorithm)
    assert refused(lying) == "The signature is in no form of ours."


def test_a_key_that_is_empty_is_a_mistake_of_ours() -> None:
    forged = signature(URL, BODY, "", ISSUED)
    with pytest.raises(ConfigurationError):
        verify(forged, ["", ""], URL, BODY, ISSUED)
    with pytest.raises(UnknownKeyError):
        verify(forged, [], URL, BODY, ISSUED)
    with pytest.raises(UnknownKeyError):
        check(forged)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "Bearer x", "ü.ü.ü", "\udcff", VECTORS["V1"][2] + "=", VECTORS["V1"][2] + ".x",
     VECTORS["V1"][2] + "\n", f"{VECTORS['V1'][2]},{VECTORS['V1'][2]}"],
)  # fmt: skip
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refused(token) == "The signature is no token."


@pytest.mark.parametrize("claims", [None, 1, [], "x"])
def test_claims_that_are_none_are_refused(claims: object) -> None:
    assert refused(signed(claims)) == "The signature holds no claims."


@pytest.mark.parametrize("vector", VECTORS)
def test_each_flipped_bit_of_a_token_is_refused(vector: str) -> None:
    _, body, token = VECTORS[vector]
    for index, character in enumerate(token):
        for bit in range(7):
            refused(token[:index] + chr(ord(character) ^ 1 << bit) + token[index + 1 :], body)


@pytest.mark.parametrize("vector", VECTORS)
def test_a_token_has_one_spelling(vector: str) -> None:
    _, body, token = VECTORS[vector]
    for character in set(string.ascii_letters + string.digits + "-_=") - {token[-1]}:
        refused(token[:-1] + character, body)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.integers(min_value=0))
def test_one_flipped_bit_of_the_body_is_refused(body: bytes, place: int) -> None:
    token = signature(URL, body, NEXT, ISSUED)
    assert check(token, body).key == NEXT
    index, bit = divmod(place % (len(body) * 8), 8)
    flipped = bytearray(body)
    flipped[index] ^= 1 << bit
    assert refused(token, bytes(flipped)) == "The signature is for another body."


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)))  # fmt: skip  # noqa: E501
def test_whatever_is_signed_there_is_an_answer(claims: object) -> None:
    refused(signed(json.loads(json.dumps(claims))))
