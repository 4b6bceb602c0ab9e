from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import orjson
import pytest
from aiohttp import web

from embedding_rooms import digest, through_a_room
from embedding_servers import API_KEY, SentenceTransformersServer, cut_off, invalid, query_embedding, told
from rowvec.domain.errors import (
    ModelMisbehavedError,
    ModelUnavailableError,
    RowvecError,
    TextRejectedError,
)
from rowvec.models.deterministic import deterministic_embedding
from rowvec.models.sentence_transformers import SentenceTransformersEmbedder
from rowvec.models.server_client import ServerAddress
from rowvec.models.server_embedder import ServedModel

DIMENSIONS = 8
TEXT = "Nobody but its owner may read this sentence."
GOOD = [1.0] * DIMENSIONS
Instead = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def server() -> AsyncIterator[SentenceTransformersServer]:
    async with SentenceTransformersServer(DIMENSIONS).serving() as serving:
        yield serving


@pytest.fixture
async def model(server: SentenceTransformersServer) -> AsyncIterator[SentenceTransformersEmbedder]:
    embedder = asking(server.url)
    yield embedder
    await embedder.close()


def asking(
    url: str, api_key: str = API_KEY, dimensions: int = DIMENSIONS, timeout_seconds: float = 30.0
) -> SentenceTransformersEmbedder:
    return SentenceTransformersEmbedder(
        ServedModel("bge_m3", dimensions, ServerAddress(url, api_key, timeout_seconds), concurrency=2)
    )


def vectors(texts: Sequence[str]) -> list[object]:
    return [deterministic_embedding(text, DIMENSIONS) for text in texts]


def answers(*, status: int = 200, body: object = None, raw: bytes | None = None) -> Instead:
    async def instead(_: web.Request) -> web.Response:
        return web.Response(status=status, body=orjson.dumps(body) if raw is None else raw)

    return instead


def shown(error: RowvecError) -> str:
    """Return all that people may get to read of an error, with those behind it."""
    return f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"


# What is asked and answered.


async def test_rows_are_sent_as_passages_and_answered_in_their_order(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    texts = ["second", "first", "学习", "second", 'a "quoted" one\n']
    found = await model.embed(texts)
    assert found == vectors(texts)
    assert {(vector.typecode, vector.itemsize) for vector in found} == {("f", 4)}
    [request] = server.requests
    assert (request.path, request.texts, request.task) == ("/embed/batch", texts, "passage")
    assert request.headers["authorization"] == f"Bearer {API_KEY}"


async def test_a_search_is_sent_as_a_query(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    assert await model.embed_query("bread") == query_embedding("bread", DIMENSIONS)
    [request] = server.requests
    assert (request.path, request.texts, request.task) == ("/embed", ["bread"], "query")


async def test_what_it_says_of_itself(model: SentenceTransformersEmbedder) -> None:
    assert (model.name, model.dimensions, model.concurrency, model.request_texts) == ("bge_m3", DIMENSIONS, 2, 32)
    assert model.traits == ("sentence_transformers-1", "passage")
    assert asking("https://elsewhere.example/bge", "other").traits == model.traits


async def test_an_address_may_have_a_path_and_a_slash(server: SentenceTransformersServer) -> None:
    paths: list[str] = []

    async def behind_a_proxy(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.json_response({"embeddings": [[1.0] * DIMENSIONS]})

    server.instead = behind_a_proxy
    for url in (f"{server.url}/models/bge", f"{server.url}/models/bge/"):
        model = asking(url)
        await model.embed(["a"])
        await model.close()
    assert paths == ["/models/bge/embed/batch"] * 2


async def test_one_connection_serves_many_requests(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    ports: set[object] = set()

    async def noting(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        return web.json_response({"embeddings": [[1.0] * DIMENSIONS]})

    server.instead = noting
    for _ in range(5):
        await model.embed(["a"])
    assert len(ports) == 1


async def test_a_model_that_was_never_asked_has_nothing_to_close() -> None:
    model = asking("http://127.0.0.1:9")
    await model.close()
    await model.close()


# Errors of the model as a whole: its items wait.


async def unavailable(model: SentenceTransformersEmbedder) -> ModelUnavailableError:
    """Return what rows and searches both end with."""
    with pytest.raises(ModelUnavailableError) as rows:
        await through_a_room(model, [TEXT, "another"])
    with pytest.raises(ModelUnavailableError) as search:
        await model.embed_query(TEXT)
    assert search.value.message.replace("/embed ", "/embed/batch ") == rows.value.message
    assert API_KEY not in shown(rows.value) + shown(search.value)
    assert TEXT not in shown(rows.value) + shown(search.value)
    return rows.value


@pytest.mark.parametrize("status", [408, 409, 418, 425, 429, 502, 503, 504])
async def test_a_server_in_trouble_is_waited_for(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, status: int
) -> None:
    server.instead = answers(status=status, body={"detail": "not now"})
    error = await unavailable(model)
    assert error.message == f"The model server answers with an error ({status})."
    assert error.hint == "not now"
    server.instead = None
    assert await model.embed(["a"]) == vectors(["a"])


@pytest.mark.parametrize(("key", "hint"), [("wrong", "Correct"), ("", "Set")])
async def test_a_key_that_does_not_fit_is_told_with_its_setting(
    server: SentenceTransformersServer, key: str, hint: str
) -> None:
    model = asking(server.url, key)
    error = await unavailable(model)
    await model.close()
    assert "(401)" in error.message
    assert error.hint == f"{hint} ROWVEC_MODEL_BGE_M3_API_KEY."


async def test_a_forbidden_key_is_told_with_its_setting(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    server.instead = answers(status=403, body={"detail": f"{API_KEY} is no key of ours"})
    error = await unavailable(model)
    assert str(error) == "The model server refuses the API key (403). Correct ROWVEC_MODEL_BGE_M3_API_KEY."


async def test_a_server_without_a_key_of_its_own_serves_nobody() -> None:
    async with SentenceTransformersServer(DIMENSIONS, api_key="").serving() as server:
        model = asking(server.url)
        error = await unavailable(model)
        await model.close()
    assert str(error) == "The model server answers with an error (503). API key not configured"


async def test_an_address_of_something_else_is_told_with_its_setting(server: SentenceTransformersServer) -> None:
    model = asking(f"{server.url}/v1")
    error = await unavailable(model)
    await model.close()
    assert error.message == "The model server does not know /embed/batch (404)."
    assert "ROWVEC_MODEL_BGE_M3_URL" in error.hint


async def test_no_redirect_is_followed(model: SentenceTransformersEmbedder, server: SentenceTransformersServer) -> None:
    asked: list[str] = []

    async def away(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(f"{server.url}/elsewhere")

    server.instead = away
    error = await unavailable(model)
    assert error.message == "The model server sends us elsewhere (307)."
    assert "ROWVEC_MODEL_BGE_M3_URL" in error.hint
    assert asked == ["/embed/batch", "/embed"]


async def test_a_server_that_is_not_there_is_waited_for(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    assert await model.embed(["a"]) == vectors(["a"])
    await model.close()
    await server.refuse_connections()
    gone = asking(server.url)
    error = await unavailable(gone)
    assert error.message == "The model server can't be reached."
    assert server.url.removeprefix("http://") in error.hint
    await server.listen()
    assert await gone.embed(["a"]) == vectors(["a"])
    await gone.close()


async def test_an_answer_that_is_cut_off_is_waited_for(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    server.instead = cut_off
    assert (await unavailable(model)).message == "The model server can't be reached."
    server.instead = None
    assert await model.embed(["a"]) == vectors(["a"])


async def test_a_slow_server_is_not_waited_for_for_ever(server: SentenceTransformersServer) -> None:
    ended = asyncio.Event()

    async def dawdle(request: web.Request) -> web.StreamResponse:
        # A byte now and then: it is the request as a whole that has a limit.
        answer = web.StreamResponse()
        await answer.prepare(request)
        while not ended.is_set():
            await answer.write(b" ")
            await asyncio.sleep(0.01)
        return answer

    server.instead = dawdle
    model = asking(server.url, timeout_seconds=0.2)
    error = await unavailable(model)
    ended.set()
    await model.close()
    assert error.message == "The model server does not answer in time."
    assert error.hint == "ROWVEC_MODEL_BGE_M3_TIMEOUT_SECONDS is 0.2."


async def test_a_server_that_hangs_up_without_a_word_is_waited_for() -> None:
    """It takes the request and closes its half of the connection, as a server does that is being killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

        thread = threading.Thread(target=hang_up)
        thread.start()
        model = asking(f"http://127.0.0.1:{listener.getsockname()[1]}")
        error = await unavailable(model)
        await model.close()
        await asyncio.to_thread(thread.join)
    assert error.message == "The model server can't be reached."


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
async def test_a_host_that_can_be_none_is_waited_for(host: str) -> None:
    model = asking(f"http://{host}")
    assert (await unavailable(model)).message == "The model server can't be reached."
    await model.close()


async def test_a_server_that_takes_no_connection_has_another_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowvec.models.server_client.CONNECT_SECONDS", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for full in (first, second):
            full.settimeout(0)
            full.connect_ex(listener.getsockname())
        model = asking(f"http://127.0.0.1:{listener.getsockname()[1]}")
        error = await unavailable(model)
        await model.close()
    assert str(error) == "The model server can't be reached. It takes no connection."


async def test_a_server_of_another_protocol_blames_no_text(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    server.instead = answers(status=422, body={"detail": "field input: missing"})
    with pytest.raises(ModelUnavailableError, match=r"fails at every text.*\(422\).*field input: missing"):
        await through_a_room(model, ["a"])


@pytest.mark.parametrize("status", [424, 500])
async def test_a_server_that_breaks_at_every_text_is_waited_for(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, status: int
) -> None:
    server.instead = answers(status=status, body={"detail": "CUDA error"})
    with pytest.raises(ModelUnavailableError, match=rf"fails at every text.*\({status}\). CUDA error"):
        await through_a_room(model, ["a", "b"])


# Errors of a text.


async def test_a_text_that_is_refused_is_rejected_for_good(model: SentenceTransformersEmbedder) -> None:
    with pytest.raises(TextRejectedError) as caught:
        await model.embed([TEXT, " "])
    assert caught.value.message == "The model server refuses the text (422)."
    assert caught.value.hint == "Input should not be blank"
    assert TEXT not in shown(caught.value)
    found = await through_a_room(model, [TEXT, " "])
    assert (set(found.embeddings), set(found.rejected)) == ({digest(TEXT)}, {digest(" ")})
    with pytest.raises(TextRejectedError):
        await model.embed_query(" ")


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_each_status_that_means_the_text_rejects_it(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, status: int
) -> None:
    async def picky(request: web.Request) -> web.Response:
        if TEXT in (await request.json())["inputs"]:
            return told(status, "can't take it")
        return web.json_response({"embeddings": [[1.0] * DIMENSIONS]})

    server.instead = picky
    with pytest.raises(TextRejectedError) as caught:
        await model.embed([TEXT])
    assert str(caught.value) == f"The model server refuses the text ({status}). can't take it"


async def test_a_text_that_breaks_the_server_is_tried_again(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    server.instead = answers(status=500, body={"detail": "CUDA error"})
    with pytest.raises(ModelMisbehavedError) as caught:
        await model.embed([TEXT])
    assert str(caught.value) == "The model server fails at the text (500). CUDA error"


async def test_a_reason_that_is_nested_deeply_is_left_out(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    server.instead = answers(status=502, raw=b'{"detail":' * 1000 + b'"no"' + b"}" * 1000)
    assert (await unavailable(model)).hint == ""


async def test_a_batch_that_is_too_large_goes_in_several() -> None:
    texts = [f"Text {n}" for n in range(32)]
    async with SentenceTransformersServer(DIMENSIONS, max_texts=10).serving() as server:
        model = asking(server.url)
        found = await through_a_room(model, texts)
        await model.close()
    assert found.embeddings == dict(zip(map(digest, texts), vectors(texts), strict=True))
    assert found.rejected == {}


async def test_a_batch_of_the_smaller_service_goes_in_one(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    texts = [f"Text {n}" for n in range(model.request_texts)]
    assert await model.embed(texts) == vectors(texts)
    assert len(server.requests) == 1


# What a server says.


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"detail": "It is blank."}', "It is blank."),
        (b'{"error": {"message": "It is blank."}}', "It is blank."),
        (b'{"message": "It is", "detail": ["blank."]}', "blank.; It is"),
        (b"It is\n  blank.", "It is blank."),
        (b"\xff", "�"),
        (b"", ""),
        (b'{"detail": "It is', ""),
        (b'{"input": "something"}', ""),
        (b'"It is blank."', "It is blank."),
        (b'{"detail": 5}', ""),
        (f"The key {API_KEY} is good, '{TEXT}' is not.".encode(), "The key [...] is good, '[...]' is not."),
        (b"x" * 1000, "x" * 197 + "..."),
        (b"[" * 100_000, ""),
    ],
)
async def test_of_what_a_server_says_only_a_short_reason_is_told(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, raw: bytes, words: str
) -> None:
    server.instead = answers(status=422, raw=raw)
    with pytest.raises(TextRejectedError) as caught:
        await model.embed_query(TEXT)
    assert caught.value.hint == words
    server.instead = answers(status=503, raw=raw)
    assert (await unavailable(model)).hint == words


async def test_a_short_text_is_not_told_and_leaves_the_reason_readable(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    server.instead = answers(status=422, body={"detail": "a batch with 'a' in it, and 王小明"})
    for text, words in (
        ("a", "[...] batch with '[...]' in it, and 王小明"),
        ("小明", "a batch with 'a' in it, and 王[...]"),
    ):
        with pytest.raises(TextRejectedError) as caught:
            await model.embed_query(text)
        assert caught.value.hint == words


async def test_what_fastapi_repeats_of_the_texts_is_not_told(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    async def fastapi(_: web.Request) -> web.Response:
        return invalid("input", "Input should be good", [TEXT] * 3000)

    server.instead = fastapi
    with pytest.raises(TextRejectedError) as caught:
        await model.embed_query("b")
    assert TEXT not in shown(caught.value)


def test_an_address_does_not_show_its_key() -> None:
    assert API_KEY not in repr(ServerAddress("http://localhost", API_KEY))


# Answers that are no vectors.


@pytest.mark.parametrize(
    ("body", "message", "detail"),
    [
        ({"embeddings": [GOOD]}, "wrong number of vectors", "1 for 2 texts"),
        ({"embeddings": [GOOD] * 3}, "wrong number of vectors", "3 for 2 texts"),
        ({"embeddings": []}, "wrong number of vectors", "0 for 2 texts"),
        ({"embeddings": [GOOD, GOOD[1:]]}, "wrong length", "7 dimensions instead of 8"),
        ({"embeddings": [GOOD, [*GOOD, 1.0]]}, "wrong length", "ROWVEC_MODEL_BGE_M3_URL"),
        ({"embeddings": [GOOD, []]}, "wrong length", "0 dimensions"),
        ({"embeddings": [GOOD, [*GOOD[1:], None]]}, "another form", "no list of numbers"),
        ({"embeddings": [GOOD, [*GOOD[1:], "1"]]}, "another form", "no list of numbers"),
        ({"embeddings": [GOOD, "12345678"]}, "another form", "no list of numbers"),
        ({"embeddings": [GOOD, {}]}, "another form", "no list of numbers"),
        ({"embeddings": [GOOD, [*GOOD[1:], 1e39]]}, "without direction", "infinite"),
        ({"embeddings": [GOOD, [*GOOD[2:], 1e39, -1e39]]}, "without direction", "infinite"),
        ({"embeddings": [GOOD, [0.0] * DIMENSIONS]}, "without direction", "zero"),
        ({"embedding": GOOD}, "another form", '"embeddings"'),
        ({"embeddings": None}, "another form", '"embeddings"'),
        ([GOOD, GOOD], "another form", '"embeddings"'),
        (None, "another form", '"embeddings"'),
    ],
)
async def test_an_answer_that_is_no_set_of_vectors_is_misbehaviour(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, body: object, message: str, detail: str
) -> None:
    server.instead = answers(body=body)
    with pytest.raises(ModelMisbehavedError, match=message) as caught:
        await model.embed(["a", "b"])
    assert detail in caught.value.hint


@pytest.mark.parametrize("body", [{"embeddings": []}, {"embeddings": [[0.0] * DIMENSIONS]}, {"error": "no"}, None])
async def test_a_server_that_misbehaves_with_every_text_blames_none(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, body: object
) -> None:
    server.instead = answers(body=body)
    with pytest.raises(ModelUnavailableError):
        await through_a_room(model, ["a", "b"])


@pytest.mark.parametrize(
    "raw",
    [
        b'{"embeddings": [[NaN, 1, 1, 1, 1, 1, 1, 1]]}',
        b'{"embeddings": [[Infinity, 1, 1, 1, 1, 1, 1, 1]]}',
        b'{"embeddings": [[1, 1, 1',
        b"<html>Sign in</html>",
        b"",
        b"\xff\xfe",
    ],
)
async def test_an_answer_that_is_no_json_is_misbehaviour(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, raw: bytes
) -> None:
    server.instead = answers(raw=raw)
    with pytest.raises(ModelMisbehavedError, match="no JSON"):
        await model.embed(["a"])
    with pytest.raises(ModelUnavailableError, match="no JSON"):
        await through_a_room(model, ["a"])


async def test_a_server_of_another_model_blames_no_text(server: SentenceTransformersServer) -> None:
    model = asking(server.url, dimensions=DIMENSIONS * 2)
    with pytest.raises(ModelUnavailableError, match=r"8 dimensions instead of 16.*ROWVEC_MODEL_BGE_M3_URL"):
        await through_a_room(model, ["a"])
    await model.close()


@pytest.mark.parametrize("vector", [GOOD[1:], [*GOOD[1:], None], "none"])
async def test_the_vector_of_a_search_is_looked_at_too(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer, vector: object
) -> None:
    server.instead = answers(body={"embedding": vector})
    with pytest.raises(ModelMisbehavedError):
        await model.embed_query("a")


async def test_of_a_huge_answer_only_the_beginning_is_read(
    model: SentenceTransformersEmbedder, server: SentenceTransformersServer
) -> None:
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(1024):
            await answer.write(b"[" * 1024**2)
            written += 1
        return answer

    server.instead = flood
    with pytest.raises(ModelMisbehavedError, match="too large"):
        await model.embed(["a"])
    assert written < 100
    server.instead = None
    assert await model.embed(["a"]) == vectors(["a"])


async def test_an_answer_written_generously_is_not_too_large(server: SentenceTransformersServer) -> None:
    """1,024 dimensions and a full batch, indented, with all digits of a double."""
    numbers = [-0.12345678901234567] * 1024

    async def pretty(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps({"embeddings": [numbers] * 32}, option=orjson.OPT_INDENT_2))

    server.instead = pretty
    model = asking(server.url, dimensions=1024)
    assert len(await model.embed(["a"] * 32)) == 32
    await model.close()


async def test_nothing_is_left_open_when_a_request_is_given_up(server: SentenceTransformersServer) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def dawdle(_: web.Request) -> web.Response:
        begun.set()
        await ended.wait()
        return web.Response()

    server.instead = dawdle
    model = asking(server.url)
    asked = asyncio.create_task(model.embed(["a"]))
    await begun.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await model.close()
    ended.set()
    del model, asked
    gc.collect()  # what is left open warns now, and a warning fails a test
