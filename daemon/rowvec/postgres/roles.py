"""The role of daemons: the least rights that work, and the session settings that it carries.

Roles are shared by all databases of a server, rights are each database's own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import asyncpg

from rowvec.domain.errors import LockedError
from rowvec.postgres.connections import SETTINGS, close, connect, translated
from rowvec.postgres.statements import statement

DAEMON_ROLE: Final = "rowvec_daemon"
TRIES: Final = 20
PAUSE_SECONDS: Final = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PreparedRole:
    """How a role is after `prepare_role`.

    Attributes:
        name: of the role.
        created: it was not there before, and is now.
        left: statements for somebody with more rights, in their order; none when the role has all it needs.
    """

    name: str
    created: bool
    left: list[str]


async def prepare_role(dsn: str, name: str = DAEMON_ROLE) -> PreparedRole:
    """Create a role for daemons unless it is there, have it carry their settings, and give it their rights here.

    What the connecting role may not do is no error: it is left to somebody else, and said.

    Args:
        dsn: of the schema's owner, or of one with more rights.
        name: of the role; all that has this name is taken for ours.

    Raises:
        RowvecError: as `connect`.
    """
    connection = await connect(dsn, None)
    try:
        with translated():
            created, left = await _patiently(lambda: _carry_settings(connection, name))
            if created is not None:
                left += await _patiently(lambda: _grant(connection, name))
    finally:
        await close(connection)
    return PreparedRole(name, bool(created), left)


async def _carry_settings(connection: asyncpg.Connection[asyncpg.Record], name: str) -> tuple[bool | None, list[str]]:
    """Return whether the role was created (None: there is none), and what is left to somebody else."""
    async with connection.transaction(isolation="read_committed"):
        found = await connection.fetchrow(statement("find_role"), name)
        assert found is not None  # noqa: S101 - it has one row, whether the role is there or not
        role = found["role"]
        create, join = f"CREATE ROLE {role} LOGIN", f"GRANT {role} TO {found['caller']}"
        if not found["found"] and not await _may(connection, create):
            return None, [f"{create};", f"{join};"]
        lacking = [
            f"ALTER ROLE {role} SET {setting} = '{value}'"
            for setting, value in SETTINGS.items()
            if f"{setting}={value}" not in found["carried"]
        ]
        # Every role may change settings of its own: a member of this one can, without any right over roles.
        carried = not lacking or await _may(connection, *lacking)
        carried = carried or await _may(connection, f"SET LOCAL ROLE {role}", *lacking, "RESET ROLE")
        return not found["found"], [] if carried else [f"{join};"]


async def _grant(connection: asyncpg.Connection[asyncpg.Record], name: str) -> list[str]:
    """Give the rights to the role, and what has been added to roles that were given them before."""
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(statement("lock_migrations"))
        others = await connection.fetch(statement("list_daemon_roles"))
        left = []
        for role in sorted({name, *(row["role"] for row in others)}):
            left += await connection.fetch(statement("grant_rights"), role)
        return [row["statement"] for row in left]


async def _may(connection: asyncpg.Connection[asyncpg.Record], *statements: str) -> bool:
    """Run statements, all or none; false when the session's role may not."""
    try:
        async with connection.transaction():
            for text in statements:
                await connection.execute(text)
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Look and do once more when another runner, of any database, has changed the same role meanwhile."""
    for _ in range(TRIES):
        try:
            return await work()
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError, asyncpg.InternalServerError) as error:
            if isinstance(error, asyncpg.InternalServerError) and "tuple concurrently" not in str(error):
                raise
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - so that two do not meet again
    raise LockedError("Other sessions keep changing the same role.", "Try again in a moment.")
