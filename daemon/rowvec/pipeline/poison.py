"""The search for the texts that a model fails at, when it fails at a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from rowvec.domain.retry import Action, decide


class PoisonSearch:
    """Asks for a request, and where that fails for its parts, until what is at fault stands alone.

    Of 500 texts with one poison among them the others have their vectors after at most 16 more requests, fewer than
    2 log2(500) = 17.9. Nothing is blamed unless the model answered another request after it.

    Args:
        ask: embeds what is named by hashes, and keeps the vectors; false when the model was not needed for that.
        prove: sees that the model embeds anything at all; raises what `decide` lets the items wait for.
    """

    def __init__(self, ask: Callable[[Sequence[bytes]], Awaitable[bool]], prove: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._prove = prove
        self._proven = True
        self._blamed: dict[bytes, Exception] = {}

    async def run(self, hashes: Sequence[bytes]) -> dict[bytes, Exception]:
        """Ask for all; return those that the model fails at, each with its error.

        Raises:
            Exception: the model as a whole is at fault.
        """
        error = await self._try(hashes)
        if error and len(hashes) == 1 and decide(error, 1) is Action.RETRY:
            # It may have been a bad moment of the model, which is over. A second failure after an answer is the text's.
            await self._be_sure()
            error = await self._try(hashes)
            self._proven = True
        if error:
            await self._part(hashes, error)
        return self._blamed

    async def _be_sure(self) -> None:
        if not self._proven:
            await self._prove()
            self._proven = True

    async def _part(self, hashes: Sequence[bytes], error: Exception) -> None:
        """Find what is at fault among hashes that failed together with an error."""
        await self._be_sure()
        if len(hashes) == 1:
            self._blamed[hashes[0]] = error
            return
        # To find it in the first part takes two requests, in the second one: so the first is the smaller.
        cut = max(1, len(hashes) * 2 // 5)
        first, second = hashes[:cut], hashes[cut:]
        first_error = await self._try(first)
        if first_error is None and len(second) > 1:
            second_error: Exception | None = error
        else:
            second_error = await self._try(second)
        if first_error:
            await self._part(first, first_error)
        if second_error:
            await self._part(second, second_error)

    async def _try(self, hashes: Sequence[bytes]) -> Exception | None:
        try:
            self._proven |= await self._ask(hashes)
        except Exception as error:
            if decide(error, 1) is Action.WAIT:
                raise
            self._proven = False
            return error
        return None
