"""Every protocol of model servers: what goes wrong with a server and with a text, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal, TypeAlias

import pytest
from aiohttp import web

from embedding_rooms import digest, through_a_room
from embedding_servers import (
    API_KEY,
    MAX_TOKENS,
    REMOTE_NAME,
    EmbeddingServer,
    OllamaServer,
    OpenAIServer,
    SentenceTransformersServer,
    TeiServer,
    Vectors,
    cut_off,
    query_embedding,
)
from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError, RowvecError, TextRejectedError
from rowvec.models import server_client
from rowvec.models.deterministic import deterministic_embedding
from rowvec.models.ollama import OllamaEmbedder
from rowvec.models.openai import OpenAIEmbedder
from rowvec.models.sentence_transformers import SentenceTransformersEmbedder
from rowvec.models.server_client import ServerAddress
from rowvec.models.server_embedder import ServedModel, ServerEmbedder
from rowvec.models.tei import TeiEmbedder

DIMENSIONS = 8
POISON = "Nobody but its owner may read this sentence."
TEXTS = [f"Text {number}" for number in range(500)]
EXTRA_REQUESTS = int(2 * math.log2(500))

Protocol: TypeAlias = tuple[type[EmbeddingServer], Callable[[ServedModel], ServerEmbedder]]
PROTOCOLS: dict[str, Protocol] = {
    "sentence_transformers": (SentenceTransformersServer, SentenceTransformersEmbedder),
    "openai": (OpenAIServer, OpenAIEmbedder),
    "tei": (TeiServer, TeiEmbedder),
    "ollama": (OllamaServer, OllamaEmbedder),
}
BARE = ["openai", "tei", "ollama"]
only = pytest.mark.parametrize


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return PROTOCOLS[request.param]


@pytest.fixture
async def server(protocol: Protocol) -> AsyncIterator[EmbeddingServer]:
    async with protocol[0](DIMENSIONS).serving() as serving:
        yield serving


@contextlib.asynccontextmanager
async def asking(server: EmbeddingServer, **given: Any) -> AsyncIterator[ServerEmbedder]:  # noqa: ANN401 - any setting
    """Serve a model as it is set; `timeout_seconds` and `api_key` are its address's."""
    address = ServerAddress(server.url, given.pop("api_key", API_KEY), given.pop("timeout_seconds", 30.0))
    served = replace(ServedModel("bge_m3", DIMENSIONS, address, 2, REMOTE_NAME), **given)
    embedder = next(embedder for kind, embedder in PROTOCOLS.values() if kind is type(server))
    model = embedder(served)
    yield model
    await model.close()


@pytest.fixture
async def model(server: EmbeddingServer) -> AsyncIterator[ServerEmbedder]:
    async with asking(server) as model:
        yield model


def vectors(texts: Sequence[str]) -> list[object]:
    return [deterministic_embedding(text, DIMENSIONS) for text in texts]


def shown(error: RowvecError) -> str:
    """Return all that people may get to read of an error, with those behind it."""
    return f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"


async def unavailable(model: ServerEmbedder) -> ModelUnavailableError:
    """Return what rows end with; searches end with an error too."""
    with pytest.raises(ModelUnavailableError) as caught:
        await through_a_room(model, [POISON, "another"])
    with pytest.raises((ModelUnavailableError, ModelMisbehavedError, TextRejectedError)) as search:
        await model.embed_query(POISON)
    for error in (caught.value, search.value):
        assert POISON not in shown(error)
        assert API_KEY not in shown(error)
    return caught.value


def spoiling(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:  # noqa: ANN401 - a hook
    """Answer otherwise where the poison is among the texts."""

    async def spoil(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        return await answer(request) if any(POISON in text for text in texts) else None

    return spoil


def always(answer: web.Response) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def again(_: web.Request) -> web.Response:
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    return again


async def alone(model: ServerEmbedder, server: EmbeddingServer, place: int = 321) -> RowvecError:
    """Embed 500 texts with a poison among them; return what that ends with, as the only one and soon."""
    texts = [*TEXTS[:place], POISON, *TEXTS[place + 1 :]]
    found = await through_a_room(model, texts)
    prefix = model.traits.prefix if isinstance(server, OpenAIServer | TeiServer | OllamaServer) else ""
    others = [text for text in texts if text != POISON]
    assert found.embeddings == dict(zip(map(digest, others), vectors([prefix + text for text in others]), strict=True))
    assert len(server.requests) <= math.ceil(500 / model.request_texts) + EXTRA_REQUESTS
    assert set(found.rejected) == {digest(POISON)}
    error = found.rejected[digest(POISON)]
    assert isinstance(error, RowvecError)
    assert POISON not in shown(error)
    return error


# What is asked and answered.


async def test_each_text_gets_its_vector(model: ServerEmbedder, server: EmbeddingServer) -> None:
    texts = ["second", "first", "学习", 'a "quoted" one\n']
    await model.ready()
    found = await model.embed(texts)
    assert found == vectors(texts)
    assert {(vector.typecode, vector.itemsize) for vector in found} == {("f", 4)}
    [request] = server.requests
    assert request.texts == texts
    assert request.headers["authorization"] == f"Bearer {API_KEY}"


async def test_500_texts_go_in_full_requests(model: ServerEmbedder, server: EmbeddingServer) -> None:
    found = await through_a_room(model, TEXTS)
    assert found.embeddings == dict(zip(map(digest, TEXTS), vectors(TEXTS), strict=True))
    assert len(server.requests) == math.ceil(500 / model.request_texts)


@only("protocol", [PROTOCOLS[name] for name in BARE], ids=BARE)
async def test_prefixes_go_before_texts_and_into_the_traits(server: EmbeddingServer) -> None:
    async with asking(server, query_prefix="query: ", passage_prefix="passage: ") as model:
        await model.ready()
        assert await model.embed(["bread", "wine"]) == vectors(["passage: bread", "passage: wine"])
        assert await model.embed_query("bread") == query_embedding("bread", DIMENSIONS)
        assert model.traits.prefix == "passage: "
    async with asking(server) as bare:
        await bare.ready()
        assert bare.traits.prefix == ""
        assert bare.traits.provider_revision == model.traits.provider_revision
    assert [request.texts for request in server.requests] == [["passage: bread", "passage: wine"], ["query: bread"]]


@only("protocol", [PROTOCOLS[name] for name in BARE], ids=BARE)
async def test_a_prefixed_text_is_not_told_either(server: EmbeddingServer) -> None:
    async with asking(server, query_prefix="query:", passage_prefix="passage:") as model:
        server.spoil = spoiling(always(server.error(400, f"passage:{POISON} and {POISON} are none")))
        error = await alone(model, server)
    assert error.hint == "[...] and [...] are none"


# Errors of the server: its items wait.


@only("status", [408, 409, 418, 429, 502, 503, 504])
async def test_a_server_in_trouble_is_waited_for(model: ServerEmbedder, server: EmbeddingServer, status: int) -> None:
    server.instead = always(server.error(status, "not now"))
    error = await unavailable(model)
    assert str(error) == f"The model server answers with an error ({status}). not now"
    assert error.unanswered is (status in {502, 504})
    assert error.retry_after_seconds is None
    server.instead = None
    found = await through_a_room(model, ["a"])
    assert found.embeddings == {digest("a"): vectors(["a"])[0]}


@only("status", [429, 503])
@only(
    ("header", "value", "seconds"),
    [
        ("Retry-After", "7", 7.0),
        ("retry-after", "0.5", 0.5),
        ("retry-after-ms", "1500", 1.5),
        ("Retry-After", "soon", None),
        ("Retry-After", "-3", None),
        ("Retry-After", "nan", None),
        ("Retry-After", "inf", None),
        ("Retry-After", "9" * 400, None),
        ("Retry-After", "Fri, 99 Jan 2026 12:00:00 GMT", None),
        ("retry-after-ms", "", None),
    ],
)
async def test_what_a_server_asks_for_is_carried_in_the_error(
    model: ServerEmbedder, server: EmbeddingServer, status: int, header: str, value: str, seconds: float | None
) -> None:
    answer = server.error(status, "too much")
    answer.headers[header] = value
    server.instead = always(answer)
    error = await unavailable(model)
    assert error.retry_after_seconds == seconds
    assert ("It asks for a pause of" in error.hint) == (seconds is not None)


async def test_a_server_may_name_the_time(model: ServerEmbedder, server: EmbeddingServer) -> None:
    answer = server.error(429, "too much")
    answer.headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    server.instead = always(answer)
    seconds = (await unavailable(model)).retry_after_seconds
    assert seconds is not None
    assert 50 < seconds <= 60
    answer.headers["Retry-After"] = "Thu, 01 Jan 1970 00:00:00 GMT"
    assert (await unavailable(model)).retry_after_seconds == 0.0


async def test_milliseconds_go_before_seconds(model: ServerEmbedder, server: EmbeddingServer) -> None:
    answer = server.error(429, "too much")
    answer.headers.update({"retry-after-ms": "20", "Retry-After": "1"})
    server.instead = always(answer)
    assert (await unavailable(model)).retry_after_seconds == 0.02


async def test_a_server_that_hangs_is_waited_for(server: EmbeddingServer) -> None:
    ended = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await ended.wait()
        return web.Response()

    server.instead = hang
    async with asking(server, timeout_seconds=0.2) as model:
        error = await unavailable(model)
        ended.set()
    assert error.unanswered
    assert str(error) == ("The model server does not answer in time. ROWVEC_MODEL_BGE_M3_TIMEOUT_SECONDS is 0.2.")


async def test_a_server_that_cuts_the_connection_is_waited_for(model: ServerEmbedder, server: EmbeddingServer) -> None:
    server.instead = cut_off
    error = await unavailable(model)
    assert (error.message, error.unanswered) == ("The model server can't be reached.", True)
    server.instead = None
    assert (await through_a_room(model, ["a"])).embeddings


async def test_a_server_that_is_not_there_is_waited_for(model: ServerEmbedder, server: EmbeddingServer) -> None:
    await server.refuse_connections()
    error = await unavailable(model)
    assert (error.message, error.unanswered) == ("The model server can't be reached.", False)
    await server.listen()
    assert (await through_a_room(model, ["a"])).embeddings


async def test_no_redirect_is_followed(model: ServerEmbedder, server: EmbeddingServer) -> None:
    asked: list[str] = []

    async def away(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(f"{server.root}/elsewhere")

    server.instead = away
    error = await unavailable(model)
    assert str(error) == "The model server sends us elsewhere (307). Set ROWVEC_MODEL_BGE_M3_URL to where it is."
    assert "/elsewhere" not in asked


async def test_a_page_in_the_place_of_json_is_waited_for(model: ServerEmbedder, server: EmbeddingServer) -> None:
    server.instead = always(web.Response(text="<html>Sign in</html>", content_type="text/html"))
    assert "no JSON" in str(await unavailable(model))


@only(("key", "hint"), [("wrong", "Correct"), ("", "Set")])
async def test_a_key_that_does_not_fit_is_told_with_its_setting(server: EmbeddingServer, key: str, hint: str) -> None:
    async with asking(server, api_key=key) as model:
        error = await unavailable(model)
    assert "(401)" in error.message
    assert error.hint == f"{hint} ROWVEC_MODEL_BGE_M3_API_KEY."


@only("status", [400, 413, 422, 424, 500])
async def test_a_server_that_fails_at_every_text_is_waited_for(
    model: ServerEmbedder, server: EmbeddingServer, status: int
) -> None:
    server.spoil = lambda request, _: always(server.error(status, "no such thing"))(request)
    error = await unavailable(model)
    assert error.message == "The model fails at every text."
    assert f"({status}). no such thing" in error.hint


@only("protocol", [PROTOCOLS["openai"], PROTOCOLS["ollama"]], ids=["openai", "ollama"])
async def test_a_model_that_the_server_does_not_have_is_told_with_its_setting(server: EmbeddingServer) -> None:
    async with asking(server, remote_name="bge_m3") as model:
        error = await unavailable(model)
    assert error.message == "The model server does not know the model (404)."
    assert "bge_m3" in error.hint
    assert error.hint.endswith("Set ROWVEC_MODEL_BGE_M3_REMOTE_NAME to its name there.")


async def test_an_address_of_something_else_is_told_with_its_setting(
    protocol: Protocol, server: EmbeddingServer
) -> None:
    address = ServerAddress(f"{server.root}/elsewhere", API_KEY)
    model = protocol[1](ServedModel("bge_m3", DIMENSIONS, address, 1, REMOTE_NAME))
    error = await unavailable(model)
    await model.close()
    assert "The model server does not know /" in error.message
    assert "ROWVEC_MODEL_BGE_M3_URL" in error.hint


# Errors of a text: it fails, and no other.


@only("status", [400, 413, 422])
@only("place", [0, 31, 32, 250, 499])
async def test_a_text_that_is_refused_is_rejected_for_good(
    model: ServerEmbedder, server: EmbeddingServer, status: int, place: int
) -> None:
    server.spoil = spoiling(always(server.error(status, f"can't take '{POISON}'")))
    error = await alone(model, server, place)
    assert isinstance(error, TextRejectedError)
    assert str(error) == f"The model server refuses the text ({status}). can't take '[...]'"


@only("status", [424, 500])
async def test_a_text_that_breaks_the_server_is_tried_again(
    model: ServerEmbedder, server: EmbeddingServer, status: int
) -> None:
    server.spoil = spoiling(always(server.error(status, "CUDA error")))
    error = await alone(model, server)
    assert isinstance(error, ModelMisbehavedError)
    assert str(error) == f"The model server fails at the text ({status}). CUDA error"


def twist_poisoned(twisted: Callable[[Vectors], Vectors]) -> Callable[[list[str], Vectors], Vectors]:
    return lambda texts, found: twisted(found) if POISON in texts else found


TWISTS: dict[str, tuple[Callable[[Vectors], Vectors], str]] = {
    "one too few": (lambda found: found[1:], "wrong number of vectors"),
    "one too many": (lambda found: [*found, found[0]], "wrong number of vectors"),
    "none": (lambda _: [], "wrong number of vectors"),
    "too short": (lambda found: [*found[:-1], found[-1][1:]], "7 dimensions instead of 8"),
    "too long": (lambda found: [[*found[0], 1.0], *found[1:]], "9 dimensions instead of 8"),
    "NaN": (lambda found: [*found[:-1], [math.nan, *found[-1][1:]]], "without direction|no JSON"),
    "infinite": (lambda found: [*found[:-1], [math.inf, *found[-1][1:]]], "without direction|no JSON"),
    "zero": (lambda found: [*found[:-1], [0.0] * DIMENSIONS], "without direction"),
    "null": (lambda found: [*found[:-1], None], "another form"),
    "objects": (lambda found: [*found[:-1], {}], "another form"),
}


@only("twist", TWISTS)
async def test_an_answer_that_is_no_set_of_vectors_is_misbehaviour(
    model: ServerEmbedder, server: EmbeddingServer, twist: str
) -> None:
    twisted, message = TWISTS[twist]
    server.twist = twist_poisoned(twisted)
    assert isinstance(await alone(model, server), ModelMisbehavedError)
    server.twist = lambda _, found: twisted(found)
    with pytest.raises(ModelUnavailableError, match=message):
        await through_a_room(model, ["a", "b"])
    with pytest.raises((ModelMisbehavedError, ModelUnavailableError)):
        await model.embed_query("a")


@only("page", [b"<html>Sign in</html>", b'{"da', b"", b"\xff\xfe", b"null", b"5", b'"text"', b"[5]", b'{"data": [5]}'])
async def test_an_answer_of_another_kind_is_misbehaviour(
    model: ServerEmbedder, server: EmbeddingServer, page: bytes
) -> None:
    server.spoil = spoiling(always(web.Response(body=page)))
    assert isinstance(await alone(model, server), ModelMisbehavedError)


# A text that is too long.


@only(
    ("protocol", "llama", "detail"),
    [
        (PROTOCOLS["openai"], False, "It has 600 tokens, the model takes 512."),
        (PROTOCOLS["openai"], True, "It has 600 tokens, the model takes 512."),
        (PROTOCOLS["tei"], False, "It has 600 tokens, the model takes 512."),
        (PROTOCOLS["ollama"], False, "the input length exceeds the context length"),
    ],
    ids=["openai", "llama.cpp", "tei", "ollama"],
)
async def test_a_text_that_is_too_long_is_rejected_for_good_with_the_figures(
    server: EmbeddingServer,
    llama: bool,  # noqa: FBT001 - a parameter of the test
    detail: str,
) -> None:
    if isinstance(server, OpenAIServer):
        server.llama = llama
    long = "word " * (MAX_TOKENS + 88)
    async with asking(server) as model:
        found = await through_a_room(model, [*TEXTS, long])
    assert len(found.embeddings) == 500
    [error] = found.rejected.values()
    assert isinstance(error, TextRejectedError)
    assert error.message == "The text is too long for the model."
    assert error.hint == f"{detail} Watch its source with chunking, or with shorter chunks."


@only("protocol", [PROTOCOLS["ollama"]], ids=["ollama"])
async def test_the_stand_in_of_ollama_cuts_unless_it_is_told_not_to(server: EmbeddingServer) -> None:
    async with asking(server) as model:
        await model.embed(["a"])
    assert server.requests[0].body["truncate"] is False


# OpenAI: order, base64, names.


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(DIMENSIONS).serving() as serving:
        yield serving


def with_data(data: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    return always(web.Response(text=json.dumps({"data": data})))


async def test_vectors_are_ordered_by_their_index(openai_server: OpenAIServer) -> None:
    texts = ["a", "b", "c"]
    numbered = [{"index": index, "embedding": list(vectors(texts)[index])} for index in (2, 0, 1)]  # type: ignore[call-overload]
    async with asking(openai_server) as model:
        openai_server.instead = with_data(numbered)
        assert await model.embed(texts) == vectors(texts)
        openai_server.instead = with_data([{"embedding": one["embedding"]} for one in numbered])
        assert await model.embed(texts) == [vectors(texts)[index] for index in (2, 0, 1)]


@only("indexes", [(0, 0), (1, 2), (-1, 0), (0, None), (0, "1"), (0.5, 1)])
async def test_vectors_whose_index_fits_no_text_are_misbehaviour(
    openai_server: OpenAIServer, indexes: Sequence[object]
) -> None:
    openai_server.instead = with_data([{"index": index, "embedding": [1.0] * DIMENSIONS} for index in indexes])
    async with asking(openai_server) as model:
        with pytest.raises(ModelMisbehavedError, match="belong to no text"):
            await model.embed(["a", "b"])


@only(
    ("base64", "formats"),
    [("taken", ["base64"] * 3), ("ignored", ["base64"] * 3), ("refused", ["base64", None, None, None])],
)
async def test_base64_is_asked_for_where_it_is_not_refused(
    openai_server: OpenAIServer,
    base64: Literal["taken", "ignored", "refused"],
    formats: list[str | None],
) -> None:
    openai_server.base64 = base64
    async with asking(openai_server) as model:
        for text in ("a", "b", "c"):
            assert await model.embed([text]) == vectors([text])
    assert [request.body.get("encoding_format") for request in openai_server.requests] == formats


async def test_a_refused_text_does_not_spoil_base64(openai_server: OpenAIServer) -> None:
    openai_server.spoil = spoiling(always(openai_server.error(400, "no")))
    async with asking(openai_server) as model:
        with pytest.raises(TextRejectedError):
            await model.embed([POISON])
        assert await model.embed(["a"]) == vectors(["a"])
        with pytest.raises(TextRejectedError):
            await model.embed([POISON])
    sent = Counter(request.body.get("encoding_format") for request in openai_server.requests)
    assert sent == {"base64": 3, None: 1}


@only("embedding", ["no base64!", "AAA", "AAAA", "é"])
async def test_base64_that_is_none_is_misbehaviour(openai_server: OpenAIServer, embedding: str) -> None:
    openai_server.instead = with_data([{"index": 0, "embedding": embedding}])
    async with asking(openai_server) as model:
        with pytest.raises(ModelMisbehavedError, match="no base64"):
            await model.embed(["a"])


async def test_vectors_are_shortened_only_by_models_that_can(openai_server: OpenAIServer) -> None:
    openai_server.instead = with_data([{"index": 0, "embedding": [1.0] * DIMENSIONS}])
    bodies: list[dict[str, Any]] = []

    async def noting(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await with_data([{"index": 0, "embedding": [1.0] * DIMENSIONS}])(request)

    openai_server.instead = noting
    for name in ("text-embedding-3-large", "text-embedding-ada-002", REMOTE_NAME):
        async with asking(openai_server, remote_name=name) as model:
            await model.embed(["a"])
            assert model.traits.provider_revision == f"openai-1 {name}"
    assert [(body["model"], body.get("dimensions")) for body in bodies] == [
        ("text-embedding-3-large", DIMENSIONS),
        ("text-embedding-ada-002", None),
        (REMOTE_NAME, None),
    ]


# text-embeddings-inference: what it says of itself.


@pytest.fixture
async def tei_server() -> AsyncIterator[TeiServer]:
    async with TeiServer(DIMENSIONS).serving() as serving:
        yield serving


@only(
    ("info", "revision", "request_texts"),
    [
        ({}, "tei-1 stand-in/model@0123abcd", 32),
        ({"model_sha": None}, "tei-1 stand-in/model", 32),
        ({"max_client_batch_size": 8}, "tei-1 stand-in/model@0123abcd", 8),
        ({"max_client_batch_size": 4096}, "tei-1 stand-in/model@0123abcd", 64),
        ({"max_client_batch_size": None}, "tei-1 stand-in/model@0123abcd", 32),
        ({"max_client_batch_size": 0}, "tei-1 stand-in/model@0123abcd", 32),
    ],
)
async def test_its_model_and_its_limit_are_read_once(
    tei_server: TeiServer, info: dict[str, object], revision: str, request_texts: int
) -> None:
    tei_server.info |= info
    async with asking(tei_server, passage_prefix="passage: ") as model:
        await asyncio.gather(model.ready(), model.ready(), model.ready())
        assert model.traits == (revision, "passage: ")
        assert model.request_texts == request_texts
        assert tei_server.infos == 1
        await model.embed(["a"])
    assert tei_server.requests[0].body == {"inputs": ["passage: a"], "truncate": False}


async def test_its_limit_is_kept(tei_server: TeiServer) -> None:
    tei_server.max_texts = 8
    tei_server.info["max_client_batch_size"] = 8
    async with asking(tei_server) as model:
        found = await through_a_room(model, TEXTS)
    assert len(found.embeddings) == 500
    assert {len(request.texts) for request in tei_server.requests} == {8, 4}


async def test_after_an_outage_it_must_have_the_same_model(tei_server: TeiServer) -> None:
    async with asking(tei_server) as model:
        await through_a_room(model, ["a"])
        tei_server.spoil = lambda request, _: always(tei_server.error(429, "Model is overloaded"))(request)
        await unavailable(model)
        tei_server.spoil = None
        assert (await through_a_room(model, ["a"])).embeddings
        assert tei_server.infos == 2
        tei_server.spoil = lambda request, _: always(tei_server.error(503, "down"))(request)
        await unavailable(model)
        tei_server.spoil, tei_server.info["model_sha"] = None, "4567"
        with pytest.raises(ModelUnavailableError, match=r"another model than before.*@4567 instead of .*@0123abcd"):
            await through_a_room(model, ["a"])
        tei_server.info["model_sha"] = "0123abcd"
        assert (await through_a_room(model, ["a"])).embeddings


@only("info", [[], {}, {"model_id": 5}, None])
async def test_a_server_that_names_no_model_is_waited_for(tei_server: TeiServer, info: object) -> None:
    tei_server.info = info  # type: ignore[assignment]
    async with asking(tei_server) as model:
        with pytest.raises(ModelUnavailableError, match=r"says nothing of a model.*ROWVEC_MODEL_BGE_M3_URL"):
            await model.ready()


# Health


PAGES = {
    SentenceTransformersServer: "/healthz",
    OpenAIServer: "/health",
    TeiServer: "/health",
    OllamaServer: "/api/version",
}


async def ill(model: ServerEmbedder) -> ModelUnavailableError:
    with pytest.raises(ModelUnavailableError) as caught:
        await model.probe()
    assert API_KEY not in shown(caught.value)
    return caught.value


async def test_each_protocol_has_a_page_for_its_health(model: ServerEmbedder, server: EmbeddingServer) -> None:
    await model.probe()
    assert server.looks == [PAGES[type(server)]]
    assert server.requests == []


@only("status", [429, 500, 502, 503])
async def test_a_server_that_is_not_well_is_waited_for(
    model: ServerEmbedder, server: EmbeddingServer, status: int
) -> None:
    server.instead = always(web.Response(status=status, text="Loading", headers={"Retry-After": "7"}))
    error = await ill(model)
    assert f"({status})" in error.message
    assert error.retry_after_seconds == 7


async def test_a_server_that_is_not_there_is_not_well(model: ServerEmbedder, server: EmbeddingServer) -> None:
    await server.refuse_connections()
    assert "can't be reached" in (await ill(model)).message


async def test_a_server_that_hangs_is_not_well(
    model: ServerEmbedder, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for as long as for a large request."""
    monkeypatch.setattr(server_client, "HEALTH_SECONDS", 0.05)

    over = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    server.instead = hang
    error = await ill(model)
    over.set()
    assert str(error) == "The model server does not answer in time. To be asked for its health it has 0.05 s."


@only("answer", ["{}", '{"status": "loading"}', '["ok"]', "ok", ""])
async def test_a_service_of_the_original_system_must_say_that_it_is_ok(answer: str) -> None:
    async with SentenceTransformersServer(DIMENSIONS).serving() as server, asking(server) as model:
        server.instead = always(web.Response(text=answer))
        assert "is not well" in (await ill(model)).message
        server.instead = always(web.Response(text='{"status": "ok", "model": "e5", "device": "cpu"}'))
        await model.probe()


@only("health", [200, 204, 301, 302, 307, 308, 401, 403, 404, 405])
async def test_a_server_of_openais_kind_need_have_no_such_page(health: int) -> None:
    async with OpenAIServer(DIMENSIONS).serving() as server, asking(server) as model:
        server.health = health
        await model.probe()
        assert server.looks == ["/health"]


@only("kind", [SentenceTransformersServer, TeiServer, OllamaServer])
async def test_the_others_must_have_it(kind: type[EmbeddingServer]) -> None:
    async with kind(DIMENSIONS).serving() as server, asking(server) as model:
        server.instead = always(web.Response(status=404))
        assert f"does not know {PAGES[kind]}" in (await ill(model)).message


# Limits


async def test_the_server_has_answered_even_where_its_vectors_are_then_refused(server: EmbeddingServer) -> None:
    answered: list[str] = []
    async with asking(server) as model:
        await model.ready()
        model.dimensions += 1
        with pytest.raises(ModelMisbehavedError, match="wrong length"):
            await model.embed(TEXTS[:3], lambda: answered.append("yes"))
    assert answered == ["yes"]


async def test_a_model_that_nothing_is_set_for_has_its_servers_limits(model: ServerEmbedder) -> None:
    limits = {
        "sentence_transformers": (32, 16_384),
        "openai": (64, 300_000),
        "tei": (32, 16_384),
        "ollama": (32, 16_384),
    }
    kind = next(name for name, (_, embedder) in PROTOCOLS.items() if type(model) is embedder)
    assert (model.request_texts, model.request_tokens) == limits[kind]
    assert model.requests_per_minute is None


async def test_limits_that_are_set_go_before(server: EmbeddingServer) -> None:
    async with asking(server, request_texts=5, request_tokens=400, requests_per_minute=30.0) as model:
        await model.ready()
        assert (model.request_texts, model.request_tokens, model.requests_per_minute) == (5, 400, 30.0)
    async with asking(server, request_texts=5) as model:
        await through_a_room(model, TEXTS[:20])
    assert [len(request.texts) for request in server.requests] == [5] * 4


@only(
    ("told", "wanted", "request_tokens"),
    [
        (None, None, 16_384),
        (4096, None, 4096),
        (0, None, 16_384),
        ("many", None, 16_384),
        (1_000_000, None, 250_000),
        (4096, 512, 512),
        (4096, 8192, 4096),
        (1_000_000, 400_000, 400_000),
    ],
)
async def test_tei_says_how_many_tokens_it_takes(
    tei_server: TeiServer, told: object, wanted: int | None, request_tokens: int
) -> None:
    tei_server.info["max_batch_tokens"] = told
    async with asking(tei_server, request_tokens=wanted) as model:
        await model.ready()
        assert model.request_tokens == request_tokens


async def test_a_request_to_tei_stays_below_two_megabytes(tei_server: TeiServer) -> None:
    tei_server.info |= {"max_batch_tokens": 10_000_000, "max_client_batch_size": 64, "max_input_length": 100_000}
    texts = [f"{number:02}" + "\n" * 100_000 for number in range(60)]
    async with asking(tei_server) as model:
        assert len((await through_a_room(model, texts)).embeddings) == 60
    assert sum(len(request.texts) for request in tei_server.requests) == 60
