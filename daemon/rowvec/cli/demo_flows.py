"""The application's flows, shown live: what each queues, at which priority, and how soon its vectors are there."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import dedent, indent
from typing import Any, Final

from rowvec.cli.demo_qstash import Carried
from rowvec.cli.demo_rows import FLOW_ANSWER, FLOWS, Flow
from rowvec.cli.demo_screen import Screen
from rowvec.cli.demo_stage import Figures, Stage
from rowvec.domain.lanes import AIM_SECONDS, Lane

# What the transaction itself has queued so far: nobody else sees it before the commit, and the daemon has folded it
# milliseconds after. The lane is that of `rowvec.embedding_queue`.
_LIST_QUEUED: Final = """
SELECT content_type, content_id, min(priority) AS priority,
       CASE WHEN min(priority) <= 2 THEN 'immediate' WHEN min(priority) <= 4 THEN 'standard' ELSE 'bulk' END AS lane
FROM rowvec.change
WHERE xmin = pg_current_xact_id()::xid
GROUP BY content_type, content_id
ORDER BY min(id)
"""


async def show_flows(stage: Stage) -> Figures:
    """Play all flows and ask for what the last one wrote; return what was measured."""
    stage.screen.head("The application's flows, each in one transaction")
    flows = [await _show(stage, flow) for flow in FLOWS]
    stage.screen.say()
    return {"flows": flows, "flow_search": await stage.ask(FLOW_ANSWER)}


async def _show(stage: Stage, flow: Flow) -> Figures:
    stage.screen.say(f"{flow.name[0].upper()}{flow.name[1:]}:")
    for statement in flow.statements:
        stage.screen.say(indent(dedent(statement).strip(), "  "), style="cyan")
    mark = stage.carried.mark if stage.carried else 0
    items = await _write(stage, flow)
    expected = [(row["content_type"], row["content_id"], flow.texts.get(row["content_type"], "")) for row in items]
    milliseconds = await stage.wait_for_vectors(expected) if items else None
    # Of several lanes the strictest counts for all.
    aim = min((AIM_SECONDS[Lane(row["lane"])] for row in items), default=None)
    within = milliseconds is None or aim is None or milliseconds <= aim * 1000
    figures = {"flow": flow.name, "items": items, "commit_to_vector_ms": milliseconds}
    _tell(stage, items, milliseconds, aim)
    messages = await _show_messages(stage.carried, stage.screen, mark, items) if stage.carried else {}
    return {**figures, "within_seconds": aim, "within": within, **messages}


async def _write(stage: Stage, flow: Flow) -> list[dict[str, Any]]:
    """Run a flow's statements as one transaction; return what they queued."""
    await stage.database.execute("BEGIN")
    for statement in flow.statements:
        await stage.database.execute(statement)
    items = await stage.database.execute(_LIST_QUEUED)
    await stage.database.execute("COMMIT")
    return items


def _tell(stage: Stage, items: list[dict[str, Any]], milliseconds: float | None, aim: float | None) -> None:
    for row in items:
        queued = f"{row['content_type']} {row['content_id']}"
        stage.screen.say(f"    queued  {queued}  priority {row['priority']}, {row['lane']}")
    if milliseconds is None:
        stage.screen.say("    queued  nothing: no column that is embedded has changed", style="green")
    else:
        found = "Its vector is" if len(items) == 1 else "All vectors are"
        stage.screen.say(
            f"    {found} there {milliseconds:.0f} ms after the commit; {aim:g} s are given.", style="green"
        )


async def _show_messages(carried: Carried, screen: Screen, mark: int, items: Sequence[dict[str, Any]]) -> Figures:
    """Wait for the messages of what a flow queued, and tell of them."""
    away = [(row["content_type"], row["content_id"]) for row in items if row["lane"] in carried.lanes]
    messages = await carried.since(mark, away) if away else []
    for message in messages:
        rows = ", ".join(f"{row['content_type']} {row['content_id']}: {row['state']}" for row in message["rows"])
        screen.say(f"    message to {message['path']}, answered {message['status']}: {rows}")
    return {"messages": messages}
