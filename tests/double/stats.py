"""GET /control/stats: what was called, scanned, held, and left alone.

`calls` and `errors` are by "service:Operation", a service being its signing name; `peaks` are the most requests of one
second, by that and by "account/region"; `peak_starts_per_second`, `peak_polls_per_second`, `peak_running`,
`bytes_scanned_started`, `bytes_scanned_completed` and `bytes_held` are of Logs Insights alone. `sessions` are those
that STS gave out, in that order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from log_queries import LogQuery
from roles import RoleSession
from world import World

if TYPE_CHECKING:
    from executions import Execution


def stats(world: World, body) -> dict:
    now = world.clock.now_ms()
    for query in (*world.queries.values(), *world.executions.values()):
        query.age(now)
    logs = [query for query in world.history if isinstance(query, LogQuery)]
    return {
        "calls": world.calls,
        "errors": world.errors,
        "peaks": world.rates.all_peaks(),
        "peaks_running": {**world.peaks_running, "logs": world.peak_running},
        "peak_starts_per_second": world.rates.peaks("logs:StartQuery"),
        "peak_polls_per_second": world.rates.peaks("logs:GetQueryResults"),
        "peak_running": world.peak_running,
        "bytes_scanned_started": sum(query.bytes_scanned for query in logs),
        "bytes_scanned_completed": sum(query.bytes_scanned for query in logs if query.status() == "Complete"),
        "bytes_held": [
            {"log_group": group.name, "account": group.account, "region": group.region, "bytes": group.stored_bytes()}
            for group in world.groups.values()
        ],
        "held": list(world.trail.held()),
        "queries": [
            query_stats(query) if isinstance(query, LogQuery) else execution_stats(world, query)
            for query in world.history
        ],
        "orphans": [query.id for query in world.history if query.orphaned()],
        "broken": world.broken,
        "signed_with": sorted(world.signed_with),
        "sessions": [held.stats() for held in world.credentials.values() if isinstance(held, RoleSession)],
    }


def query_stats(query: LogQuery) -> dict:
    return {
        "service": query.service,
        "id": query.id,
        "account": query.account,
        "region": query.region,
        "queryString": query.query_string,
        "startTime": query.start,
        "endTime": query.end,
        "limit": query.limit,
        "logGroups": query.log_group_names,
        "status": query.status(),
        "polls": query.polls,
        "bytesScanned": query.bytes_scanned,
        "fetched_complete": query.read_all,
        "stopped": query.stopped,
        "forgotten": query.forgotten,
    }


def execution_stats(world: World, query: Execution) -> dict:
    outcome = query.outcome()
    return {
        "service": query.service,
        "id": query.id,
        "account": query.account,
        "region": query.region,
        "queryString": query.text,
        "clientRequestToken": query.token,
        "status": query.state(),
        "polls": query.polls,
        "rows": len(outcome.rows),
        "eventsMatched": outcome.matched,
        "eventsScanned": outcome.scanned.events,
        "bytesScanned": outcome.scanned.bytes,
        "bytes_held_columns": query.held_columns(world.trail.weights),
        "fetched_complete": query.read_all,
        "stopped": query.stopped,
        "forgotten": query.forgotten,
    }
