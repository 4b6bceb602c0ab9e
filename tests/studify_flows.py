"""What happens in the application of the preset, and how soon it must be found."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from daemons import eventually
from rowvec.domain.lanes import Lane

LANES = {2: Lane.IMMEDIATE, 3: Lane.STANDARD, 4: Lane.STANDARD, 5: Lane.BULK}


@dataclass(frozen=True)
class Flow:
    """A statement of the application, and what it must bring up to date.

    Attributes:
        sql: what is written.
        queued: content type to priority.
        found: content type to a word of the text that its vector must have been made of.
    """

    sql: str
    queued: dict[str, int]
    found: dict[str, str]


FLOWS = {
    "a user registers": Flow(
        """INSERT INTO auth.users (id, email, raw_user_meta_data)
           VALUES ('11111111-1111-1111-1111-111111111111', 'ada@example.org', '{"full_name": "Ada Novak"}')""",
        {"auth_user": 2, "profile": 2},
        {"auth_user": "Ada Novak", "profile": "Ada Novak"},
    ),
    "a profile is edited": Flow(
        "UPDATE profiles SET bio = 'I teach the piano', interests = '{music,hiking}'",
        {"profile": 2},
        {"profile": "piano"},
    ),
    "a course is made": Flow(
        """INSERT INTO course (id, title, description, category, tags, requirements, learning_objectives)
           VALUES (1, 'Piano', 'From the first scale', 'music', '{keys}', '{a piano}', '{play a sonatina}')""",
        {"course": 2},
        {"course": "sonatina"},
    ),
    "a course gets other objectives": Flow(
        "UPDATE course SET learning_objectives = '{play a fugue}'", {"course": 2}, {"course": "fugue"}
    ),
    "a course is looked at": Flow("UPDATE course SET view_count = 1, price = 9, updated_at = now()", {}, {}),
    "a lesson is written": Flow(
        "INSERT INTO lesson (id, course_id, title, content) VALUES (1, 1, 'Hands', E'# Posture\n\nSit upright.')",
        {"lesson": 3},
        {"lesson": "upright"},
    ),
    "a post is written": Flow(
        """INSERT INTO community_post (id, author_id, title, body)
           SELECT 1, id, '钢琴要调音吗', '新买的钢琴多久调一次音' FROM auth.users""",
        {"post": 4},
        {"post": "调音"},
    ),
    "a comment is written": Flow(
        "INSERT INTO comments (post_id, author_id, body) SELECT 1, id, 'Twice a year.' FROM auth.users",
        {"comment": 5},
        {"comment": "Twice"},
    ),
    "a user signs in": Flow("UPDATE auth.users SET last_sign_in_at = now()", {}, {}),
}


async def found(session: asyncpg.Connection, content_type: str, word: str) -> None:
    """Wait for a vector that was made of a text with the word."""
    held = "SELECT FROM rowvec.vector_e5_small WHERE content_type = $1 AND strpos(chunk_text, $2) > 0"

    async def there() -> bool:
        return bool(await session.fetch(held, content_type, word))

    await eventually(there, what=f"{content_type} with {word}")
