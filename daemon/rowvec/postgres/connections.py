"""Connections: the pool, the binary codec of vectors, and what their errors mean."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import asyncpg
from pgvector.asyncpg import register_vector

from rowvec.domain.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    LockedError,
    RowvecError,
    SchemaOutdatedError,
    SourceUnreadableError,
    StatementTimeoutError,
    TextRejectedError,
    UsageError,
)
from rowvec.postgres.statements import quote_identifier, statement

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
MAX_STATEMENTS: Final = 1000
"""More than there are: a statement that fell out of the driver's cache would be parsed again."""

CONNECT_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 2.0
POOL_SIZE: Final = 7
PLANNING: Final = {
    # The statements are written for READ COMMITTED, whatever the role's or database's default.
    "default_transaction_isolation": "read committed",
    # They are many and short, and written so that one plan serves every size of the queue: that through the index.
    # A plan made while the queue was empty would be a scan, and stay one when a million items come.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # While a few items wait, the index of another order and a sort look cheaper than the one that is in order.
    "enable_sort": "off",
    "jit": "off",
}
BOUNDS: Final = {
    # A daemon that is frozen or cut off inside a transaction must not keep its locks: the fold's would stop everybody.
    "idle_in_transaction_session_timeout": "3s",
    # Below COMMAND_SECONDS: a server that is slow says so itself, and only one that is silent is taken for away.
    "statement_timeout": "25s",
    "lock_timeout": "2s",
}
# A lost claim, store or completion is done again: vectors and the end of their item are one transaction. An fsync
# each would buy nothing.
SETTINGS: Final = {"synchronous_commit": "off", **PLANNING, **BOUNDS}
"""Session settings of the pool, as Postgres shows them."""
REACH_HINT: Final = "Does it run, and is DATABASE_URL its address?"
DSN_FORM: Final = (
    "Its form is postgresql://USER:PASSWORD@HOST:5432/DATABASE, with special characters in USER and PASSWORD "
    "percent-encoded."
)

_UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # how asyncpg ends when a connection is cut in the middle of a statement
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,  # connections, memory or disk: a person or time will help
    asyncpg.TransactionRollbackError,  # a deadlock with somebody's own statements: done again
    asyncpg.ReadOnlySQLTransactionError,  # a failover has made this server a replica
    asyncpg.InvalidCachedStatementError,  # a migration has just been applied
)
_MISSING: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)
_REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_OURS: Final[Mapping[str | None, Callable[[str, str], RowvecError]]] = {
    "RV001": lambda said, hint: UsageError(f"{said}.", hint),
    "RV002": lambda said, hint: SourceUnreadableError(f"{said}.", hint),
    "RV003": lambda said, _: TextRejectedError("The content id is no key of its table.", said),
}
"""What our own functions raise."""


def translate(error: Exception) -> Exception:
    """Return what a driver's error means to the rest of the program; an unknown one stays as it is.

    Args:
        error: raised by asyncpg or the network below it.
    """
    state = getattr(error, "sqlstate", None)
    hint = getattr(error, "hint", None) or ""
    said = _message(error)
    match error:
        case RowvecError():
            return error
        case _ if state in _OURS:
            return _OURS[state](said, hint)
        case asyncpg.InsufficientPrivilegeError():
            return _forbidden(said)
        case asyncpg.ProtocolViolationError() if "startup parameter" in said:
            return ConfigurationError(
                f"A pooler refuses the session settings: {said}.",
                "Connect as rowvec_daemon, which carries them, or directly.",
            )
        case asyncpg.LockNotAvailableError():
            return LockedError("The table is locked by another transaction.", "Try again in a moment.")
        case asyncpg.QueryCanceledError():
            return StatementTimeoutError("A statement took too long and was given up.")
        case _ if isinstance(error, _MISSING):
            return SchemaOutdatedError(f"The database is not prepared: {said}.", "Run `rowvec migrate` first.")
        case _ if isinstance(error, _REFUSED):
            return ConfigurationError(f"Postgres refuses the connection: {said}.", "Check DATABASE_URL.")
        case _ if isinstance(error, _UNAVAILABLE):
            return DatabaseUnavailableError(f"Postgres can't be reached: {said}.", hint or REACH_HINT)
        case _:
            return error


def _forbidden(said: str) -> ConfigurationError:
    if "row-level security" in said:
        return ConfigurationError(
            f"The owner of the schema rowvec does not see all rows: {said}.",
            "Give that role BYPASSRLS: a row that a policy hides could not be told from a deleted one.",
        )
    return ConfigurationError(
        f"The database role lacks a right: {said}.",
        "Connect as the role that ran `rowvec migrate`; the daemon can do with the rights of rowvec_daemon.",
    )


def _message(error: Exception) -> str:
    """Return what an error says, without the detail and the hint that asyncpg writes below it."""
    text = error.args[0] if isinstance(error, asyncpg.PostgresError) and error.args else error
    return str(text).rstrip(".") or type(error).__name__


@contextmanager
def translated() -> Iterator[None]:
    """Raise our own errors in place of the driver's."""
    try:
        yield
    except Exception as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Rolling back on a dead connection hides the cancellation behind an error that rooms would wait out.
            raise asyncio.CancelledError from error
        meaning = translate(error)
        if meaning is error:
            raise
        raise meaning from error


def keep_alive(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Let the kernel notice a peer that is gone: asyncpg leaves SO_KEEPALIVE off."""
    transport: Any = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
    wire = transport.get_extra_info("socket")
    if wire is None or wire.family == socket.AF_UNIX:
        return
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
    ):
        wire.setsockopt(level, option, value)


async def connect(dsn: str, command_seconds: float | None = COMMAND_SECONDS) -> asyncpg.Connection[asyncpg.Record]:
    """Open a direct connection, for commands and the listener.

    Args:
        dsn: a libpq connection string.
        command_seconds: the longest a statement may take; None for work that may be long.

    Raises:
        DatabaseUnavailableError: Postgres can't be reached.
        ConfigurationError: it refuses the role or the database, or the string makes no sense.
    """
    with translated():
        try:
            connection = await asyncpg.connect(
                _require_address(dsn),
                timeout=CONNECT_SECONDS,
                command_timeout=command_seconds,
                server_settings={"application_name": "rowvec"},
            )
        except (asyncpg.ClientConfigurationError, ValueError) as error:
            # The error itself stays out of tracebacks: it may repeat a part of the password.
            raise ConfigurationError(
                "DATABASE_URL is no connection string.", f"{DSN_FORM} {_spoken_reason(dsn, error)}".rstrip()
            ) from None
        keep_alive(connection)
    return connection


def _require_address(dsn: str) -> str:
    """Refuse an empty string, which the driver takes for whatever server is near."""
    if not dsn.strip():
        raise ValueError("It is empty.")
    return dsn


def _spoken_reason(dsn: str, error: Exception) -> str:
    """Return the driver's words unless they repeat a piece of what may be the user and password.

    Unencoded special characters cut a password apart: the driver takes a piece of it for the port and quotes it.
    """
    before_host = dsn.partition("://")[2].rpartition("@")[0] or ("" if "://" in dsn else dsn)
    pieces = filter(None, re.split(r"\W+", before_host))
    return "" if any(piece in str(error) for piece in pieces) else str(error)


async def close(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Close a connection; a server that no longer answers is waited for a few seconds."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except _UNAVAILABLE:
        connection.terminate()


class Session(asyncpg.Connection):
    """A connection of the pool, which remembers what it has parsed."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - the driver's own
        super().__init__(*arguments, **settings)
        self._parsed: set[str] = set()

    async def parse(self, texts: Iterable[str]) -> None:
        """Have statements parsed that are not yet.

        The driver parses in a round trip of its own. Postgres waits there in the middle of a message, where
        `idle_in_transaction_session_timeout` does not count: a daemon frozen at that point of a transaction would
        keep its locks. So nothing is parsed inside one.
        """
        for text in texts:
            if text not in self._parsed:
                await self.executemany(text, ())  # parses, and with no arguments there is nothing to execute
                self._parsed.add(text)


async def _leave_as_it_is(_: object) -> None:
    """Spare each loan a round trip: nobody who borrows a connection changes its session."""


class Database:
    """A pool of connections that know vectors.

    Args:
        dsn: a libpq connection string.
        size: the most connections.
    """

    def __init__(self, dsn: str, size: int = POOL_SIZE) -> None:
        self._dsn = dsn
        self._size = size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.vector_schema = "public"

    @property
    def vector_type(self) -> str:
        """The quoted name of pgvector's type: the extension may live in any schema."""
        return quote_identifier(self.vector_schema) + ".vector"

    async def open(self) -> None:
        """Connect, unless it is open; raises as `connect`, or ConfigurationError without pgvector."""
        if self._pool is not None:
            return
        connection = await connect(self._dsn)
        try:
            with translated():
                schema = (await connection.fetchrow(statement("show_server")))["vector_schema"]  # type: ignore[index]
                carried = await connection.fetchval(
                    statement("compare_settings"), list(SETTINGS), list(SETTINGS.values())
                )
        finally:
            await close(connection)
        if schema is None:
            raise SchemaOutdatedError("The extension vector is not installed here.", "Run `rowvec migrate` first.")
        self.vector_schema = schema
        with translated():
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,  # a pooler that refuses settings does so now
                max_size=self._size,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                init=self._prepare,
                reset=_leave_as_it_is,
                connection_class=Session,
                statement_cache_size=MAX_STATEMENTS,
                max_cached_statement_lifetime=0,
                # A pooler would refuse settings given at the start, and let those of a SET leak to others.
                server_settings={"application_name": "rowvec", **({} if carried else SETTINGS)},
            )

    async def close(self) -> None:
        """Close the pool; a database that no longer answers is waited for a few seconds."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except _UNAVAILABLE:
            pool.terminate()

    def abandon(self) -> None:
        """Cut all connections: what waits on a silent server ends at once."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; errors inside come out translated."""
        if self._pool is None:
            raise DatabaseUnavailableError("The pool is not open.")
        with translated():
            async with self._pool.acquire(timeout=COMMAND_SECONDS) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self, *texts: str) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction.

        Args:
            texts: all statements that will be run in it; see `Session.parse`.
        """
        async with self.connection() as connection:
            session: Any = connection  # the proxy of a Session, which its type does not tell
            await session.parse(texts)
            async with connection.transaction():
                yield connection

    async def fetch(self, name: str, *arguments: object, table: str = "") -> list[asyncpg.Record]:
        """Run a named statement on a connection of the pool."""
        async with self.connection() as connection:
            return await connection.fetch(self.sql(name, table), *arguments)

    def sql(self, name: str, table: str = "") -> str:
        """Return the text of a named statement for this database."""
        return statement(name, table=table, vector=self.vector_type)

    async def _prepare(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        keep_alive(connection)
        await register_vector(connection, schema=self.vector_schema)
