"""What the demo puts into the preset's tables, asks of them and writes to them; the rows stand in `demo_data/`."""
# ruff: noqa: RUF001 - Chinese has commas and brackets of its own

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, TypeAlias

import orjson

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DemoTable:
    """A table of the preset and its rows; keys that are numbers count from 1.

    Attributes:
        content_type: what the preset calls its rows.
        name: with its schema.
        insert: a statement that takes rows as a JSON array.
        rows: in the order of their keys.
        all_early: no rows are left for later, because others belong to them.
    """

    content_type: str
    name: str
    insert: str
    rows: Sequence[Row]
    all_early: bool = False

    @property
    def early(self) -> Sequence[Row]:
        """The rows that are there before the watch: the backfill brings them, at bulk priority."""
        return self.rows if self.all_early else self.rows[: len(self.rows) * 2 // 3]

    @property
    def late(self) -> Sequence[Row]:
        """The rows that are written under the watch, at the source's own priority."""
        return self.rows[len(self.early) :]


@dataclass(frozen=True, slots=True)
class Question:
    """A search, and what must come first: a content type and a title."""

    text: str
    content_type: str
    answer: str


@dataclass(frozen=True, slots=True)
class Flow:
    """Something that happens in the application.

    Attributes:
        name: what happens, in words.
        statements: what the application writes, in one transaction.
        texts: by content type, what a vector's text must contain to be the new one; by default any will do.
    """

    name: str
    statements: Sequence[str]
    texts: Mapping[str, str] = field(default_factory=dict)


def as_json(rows: Sequence[Row]) -> str:
    """Return rows as the argument of `DemoTable.insert`."""
    return orjson.dumps([dict(row) for row in rows]).decode()


def _read(name: str) -> Sequence[Row]:
    text = (files("rowvec.cli") / "demo_data" / f"{name}.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["row"])


USERS: Final = DemoTable(
    "auth_user",
    "auth.users",
    """
    INSERT INTO auth.users (id, raw_user_meta_data)
    SELECT r.id, jsonb_build_object('full_name', r.name) FROM jsonb_to_recordset($1) AS r (id uuid, name text)
    """,
    _read("users"),
    all_early=True,
)
PROFILES: Final = DemoTable(
    "profile",
    "public.profiles",
    """
    INSERT INTO public.profiles (user_id, display_name, bio, interests)
    SELECT r.id, r.name, r.bio, r.interests
    FROM jsonb_to_recordset($1) AS r (id uuid, name text, bio text, interests text[])
    """,
    USERS.rows,
    all_early=True,
)
COURSES: Final = DemoTable(
    "course",
    "public.course",
    """
    INSERT INTO public.course (owner_id, title, description, category, tags, requirements, learning_objectives)
    SELECT (SELECT p.user_id FROM public.profiles p WHERE p.display_name = r.owner),
           r.title, r.description, r.category, r.tags, r.requirements, r.learning_objectives
    FROM jsonb_to_recordset($1) AS r (owner text, title text, description text, category text, tags text[],
                                      requirements text[], learning_objectives text[])
    """,
    _read("courses"),
)
LESSONS: Final = DemoTable(
    "lesson",
    "public.lesson",
    """
    INSERT INTO public.lesson (course_id, title, description, content)
    SELECT (SELECT c.id FROM public.course c WHERE c.title = r.course), r.title, r.description, r.content
    FROM jsonb_to_recordset($1) AS r (course text, title text, description text, content text)
    """,
    _read("lessons"),
)
POSTS: Final = DemoTable(
    "post",
    "public.community_post",
    """
    INSERT INTO public.community_post (author_id, title, body)
    SELECT (SELECT p.user_id FROM public.profiles p WHERE p.display_name = r.author), r.title, r.body
    FROM jsonb_to_recordset($1) AS r (author text, title text, body text)
    """,
    _read("posts"),
)
COMMENTS: Final = DemoTable(
    "comment",
    "public.comments",
    """
    INSERT INTO public.comments (post_id, author_id, body)
    SELECT (SELECT c.id FROM public.community_post c WHERE c.title = r.post),
           (SELECT p.user_id FROM public.profiles p WHERE p.display_name = r.author), r.body
    FROM jsonb_to_recordset($1) AS r (post text, author text, body text)
    """,
    _read("comments"),
)
TABLES: Final = (USERS, PROFILES, COURSES, LESSONS, POSTS, COMMENTS)
"""In the order in which rows refer to each other."""

UPDATE_POST: Final = "UPDATE public.community_post SET title = $2, body = $3, updated_at = now() WHERE id = $1"

LIST_TITLES: Final = """
SELECT 'auth_user' AS content_type, id::text AS content_id, raw_user_meta_data ->> 'full_name' AS title FROM auth.users
UNION ALL SELECT 'profile', id::text, display_name FROM public.profiles
UNION ALL SELECT 'course', id::text, title FROM public.course
UNION ALL SELECT 'lesson', id::text, title FROM public.lesson
UNION ALL SELECT 'post', id::text, title FROM public.community_post
UNION ALL SELECT 'comment', id::text, body FROM public.comments
"""

QUESTIONS: Final = (
    Question("My toddler refuses to eat vegetables", "post", "孩子不肯吃蔬菜"),
    Question("狗可以吃巧克力吗？", "post", "Can dogs eat chocolate?"),
    Question("What do I need before I bring a kitten home?", "post", "新手养猫要准备什么"),
    Question("I want to learn to play the guitar", "course", "古典吉他基础"),
    Question("Which telescope should a beginner buy?", "lesson", "Choosing a first telescope"),
    Question("B 树索引的页为什么会分裂？", "lesson", "索引为什么快"),
    Question(
        "怎样避免死锁？",
        "comment",
        "让所有事务按同一个顺序更新，比如先小 id 后大 id，死锁就不会出现了；剩下的重试一次。",
    ),
    Question("Who plays the viola?", "profile", "Ingrid Solheim"),
    Question("Is there a child psychologist?", "profile", "叶知秋"),
)

FLOWS: Final = (
    Flow(
        "a user registers",
        ("""INSERT INTO auth.users (raw_user_meta_data) VALUES ('{"full_name": "Odalys Fenwright"}')""",),
    ),
    Flow(
        "a course's description is changed",
        (
            """
            UPDATE course SET description = 'Two hundred phrases, spoken by people you might meet on the way.'
            WHERE title = 'Spanish for the road'
            """,
        ),
        {"course": "Two hundred phrases, spoken by people you might meet on the way."},
    ),
    Flow(
        "a course is looked at",
        ("UPDATE course SET view_count = view_count + 1 WHERE title = 'Spanish for the road'",),
    ),
    Flow(
        "a post is written, with a comment",
        (
            """
            INSERT INTO community_post (author_id, title, body)
            SELECT user_id, '如何安全地冬泳', '冬天在湖里游泳，水温只有六度，能游多久？上岸以后怎样保暖？'
            FROM profiles WHERE display_name = '沈一鸣'
            """,
            """
            INSERT INTO comments (post_id, author_id, body)
            SELECT p.id, a.user_id, '第一次别超过一分钟，上岸马上擦干，从里到外换上干衣服，再慢慢喝热茶。'
            FROM community_post p, profiles a WHERE p.title = '如何安全地冬泳' AND a.display_name = '叶知秋'
            """,
        ),
    ),
)

FLOW_ANSWER: Final = Question("Is it safe to swim in a lake in winter?", "post", "如何安全地冬泳")
"""A question that only the post of the last flow answers."""

BEFORE: Final = "When to repot an orchid"
"""The post that is rewritten to another topic."""

AFTER: Final = {
    "title": "Shooting stars in the second week of August",
    "body": "The Perseids peak on the 12th and there is no moon: lie down in a dark place after midnight and look up.",
}

NEW_ANSWER: Final = Question("When can I see shooting stars?", "post", AFTER["title"])

AFTERTHOUGHTS: Final = (
    "Thank you all, that helped.",
    "谢谢大家，问题解决了。",
    "I will try it this weekend and report back.",
    "补充：周末试过了，效果不错。",
)
"""What the measured updates append, in turns, to one post after another."""
