"""What the demo's scenes share: the stage, a search, and the wait for new vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rowvec.cli.demo_qstash import Carried
from rowvec.cli.demo_rows import LIST_TITLES, TABLES, Question
from rowvec.cli.demo_screen import Screen
from rowvec.domain.errors import RowvecError
from rowvec.ports import Embedder
from rowvec.postgres.administration import Administration
from rowvec.telemetry import Metrics

CONTENT_TYPES: Final = [table.content_type for table in TABLES]
ANSWERS: Final = 3
POLL_SECONDS: Final = 0.001
LONGEST_WAIT_SECONDS: Final = 60.0

# The vector of one model for the text as it stands now.
_FIND_VECTOR: Final = """
SELECT FROM rowvec.vector v
WHERE v.tableoid = ('rowvec.vector_' || $1)::regclass AND v.content_type = $2 AND v.content_id = $3
  AND strpos(v.chunk_text, $4) > 0
LIMIT 1
"""

Figures: TypeAlias = dict[str, Any]
Expected: TypeAlias = tuple[str, str, str]
"""A content type, a content id, and what the text of one of its vectors must contain."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the scenes are played on.

    Args:
        dsn: of the database.
        database: the session that writes and searches.
        watcher: another session, which sees only what is committed.
        embedders: the daemon's own models; the first one answers the searches.
        metrics: the daemon's.
        screen: where it is told.
        carried: what QStash brings; None: all work is done without it.
    """

    dsn: str
    database: Administration
    watcher: Administration
    embedders: Sequence[Embedder]
    metrics: Metrics
    screen: Screen
    carried: Carried | None = None

    async def search(self, text: str) -> Figures:
        """Ask, print and return the answers."""
        embedder = self.embedders[0]
        embedding = await embedder.embed_query(text)
        rows = await self.database.search(text, embedding, None, CONTENT_TYPES, embedder.name, ANSWERS)
        listed = await self.database.execute(LIST_TITLES)
        titles = {(row["content_type"], row["content_id"]): row["title"] for row in listed}
        answers = [_answer(row, titles.get((row["content_type"], row["content_id"]), "")) for row in rows]
        self.screen.say(f"? {text}", style="cyan")
        self.screen.answers(answers)
        return {"question": text, "answers": answers}

    async def ask(self, question: Question) -> Figures:
        """Search, and say whether the expected answer came first."""
        found = await self.search(question.text)
        first = found["answers"][0] if found["answers"] else {"content_type": None, "title": None}
        right = (first["content_type"], first["title"]) == (question.content_type, question.answer)
        expected = {"expected_type": question.content_type, "expected": question.answer}
        return {**found, **expected, "as_expected": right}

    async def wait_for_vectors(self, expected: Collection[Expected]) -> float:
        """Return the milliseconds from now, just after a commit, until another session sees all these vectors.

        Raises:
            RowvecError: they don't come.
        """
        committed = time.perf_counter()
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                for one in expected:
                    await self._wait_for_vector(*one)
        except TimeoutError:
            raise RowvecError(f"A changed row has no vector after {LONGEST_WAIT_SECONDS:g} s.") from None
        return round((time.perf_counter() - committed) * 1000, 1)

    async def _wait_for_vector(self, *expected: str) -> None:
        model = self.embedders[0].name
        while not await self.watcher.execute(_FIND_VECTOR, model, *expected):  # noqa: ASYNC110 - another process acts
            await asyncio.sleep(POLL_SECONDS)


def _answer(row: dict[str, Any], title: str) -> Figures:
    kept = {name: row[name] for name in ("content_type", "content_id")}
    return {"score": round(row["score"], 4), **kept, "title": title}
