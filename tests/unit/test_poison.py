from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError, TextRejectedError
from rowvec.pipeline.poison import PoisonSearch

NO = TextRejectedError("No.")
AWAY = ModelUnavailableError("The model is away.")


class Model:
    """Fails at requests with poison in them; after `dies_after` requests at all."""

    def __init__(self, poison: Collection[bytes], dies_after: float = math.inf, most: float = math.inf) -> None:
        self.poison, self.dies_after, self.most = poison, dies_after, most
        self.requests = 0
        self.embedded: list[bytes] = []

    async def ask(self, hashes: Sequence[bytes]) -> bool:
        assert hashes
        self.requests += 1
        if self.requests > self.dies_after or len(hashes) > self.most or set(self.poison) & set(hashes):
            raise NO
        self.embedded += hashes
        return True

    async def prove(self) -> None:
        self.requests += 1
        if self.requests > self.dies_after:
            raise AWAY

    async def run(self, hashes: Sequence[bytes]) -> set[bytes]:
        blamed = await PoisonSearch(self.ask, self.prove).run(hashes)
        assert all(error is NO for error in blamed.values())
        return set(blamed)


def texts(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


@pytest.mark.parametrize("count", [32, 64, 128, 500, 512])
async def test_one_poison_costs_few_requests_wherever_it_is(count: int) -> None:
    extra = []
    for poison in texts(count):
        model = Model({poison})
        assert await model.run(texts(count)) == {poison}
        assert sorted(model.embedded) == sorted(set(texts(count)) - {poison})
        extra.append(model.requests - 1)
    assert max(extra) <= 2 * math.log2(count)


async def test_what_is_fine_costs_one_request() -> None:
    model = Model(())
    assert await model.run(texts(64)) == set()
    assert model.requests == 1
    assert model.embedded == texts(64)


@given(st.integers(1, 70), st.sets(st.integers(0, 69), max_size=12))
async def test_each_text_is_embedded_once_or_blamed(count: int, poison: set[int]) -> None:
    model = Model({str(number).encode() for number in poison})
    blamed = await model.run(texts(count))
    assert blamed == set(texts(count)) & set(model.poison)
    assert sorted([*model.embedded, *blamed]) == sorted(texts(count))


@pytest.mark.parametrize("count", [1, 2, 64])
async def test_a_model_that_fails_at_everything_blames_nothing(count: int) -> None:
    model = Model((), dies_after=0)
    with pytest.raises(ModelUnavailableError):
        await model.run(texts(count))
    assert model.requests == 2


@pytest.mark.parametrize("count", [2, 5, 64])
async def test_a_model_that_dies_in_the_middle_blames_nothing_that_it_did_not_survive(count: int) -> None:
    for dies_after in range(1, 14):
        poison = texts(count)[-1]
        model = Model({poison}, dies_after=dies_after)
        try:
            assert await model.run(texts(count)) == {poison}
        except ModelUnavailableError:
            assert model.requests <= dies_after + 3


async def test_what_is_too_much_at_once_goes_in_several() -> None:
    model = Model((), most=10)
    assert await model.run(texts(32)) == set()
    assert sorted(model.embedded) == sorted(texts(32))


async def test_an_outage_comes_as_it_is() -> None:
    async def ask(_: Sequence[bytes]) -> bool:
        raise AWAY

    async def prove() -> None:
        raise AssertionError

    with pytest.raises(ModelUnavailableError) as caught:
        await PoisonSearch(ask, prove).run(texts(8))
    assert caught.value is AWAY


async def test_a_bad_moment_of_the_model_is_not_the_only_texts_fault() -> None:
    """It was broken when the text came, and not any more when it was asked for another."""
    failures = [ModelMisbehavedError("CUDA error.")]
    model = Model(())

    async def ask(hashes: Sequence[bytes]) -> bool:
        if failures:
            raise failures.pop()
        return await model.ask(hashes)

    assert await PoisonSearch(ask, model.prove).run(texts(1)) == {}
    assert model.embedded == texts(1)


async def test_a_single_text_that_fails_on_both_sides_of_an_answer_is_at_fault() -> None:
    error = ModelMisbehavedError("CUDA error.")
    asked: list[str] = []

    async def ask(_: Sequence[bytes]) -> bool:
        asked.append("text")
        raise error

    async def prove() -> None:
        asked.append("harmless")

    assert await PoisonSearch(ask, prove).run(texts(1)) == {texts(1)[0]: error}
    assert asked == ["text", "harmless", "text"]


async def test_what_another_has_sent_proves_nothing() -> None:
    """The second half came from elsewhere: the model itself has answered nothing since it failed at the first."""
    asked: list[Sequence[bytes]] = []
    proofs: list[Exception | None] = [None, AWAY]

    async def ask(hashes: Sequence[bytes]) -> bool:
        asked.append(hashes)
        if len(asked) == 3:
            return False
        raise NO

    async def prove() -> None:
        if error := proofs.pop(0):
            raise error

    with pytest.raises(ModelUnavailableError):
        await PoisonSearch(ask, prove).run(texts(2))
    assert asked == [texts(2), texts(2)[:1], texts(2)[1:]]
