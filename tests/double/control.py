"""The tests' own side of the double: unsigned JSON under /control/. A wrong order is answered 400.

POST groups       [{"name", "account", "region", "class", "creationTime", "retentionInDays"}]
POST events       {"log_group", "account", "region", "events": [{"timestamp", "queryable", "message"}]}, or
                  {"file": path} of lines {"log_group", "account", "region", "timestamp", "queryable", "message"}
POST, GET clock   {"set_ms"} frozen there | {"advance_ms"} | {"real": true, "offset_ms"}
POST credentials  [{"access_key", "secret", "session_token", "account", "expires_ms", "denied", "monitors"}]
POST, GET switches  some or all of world.SWITCHES
POST, DELETE faults  [{"operation", "skip", "times", "action"}], see faults.py
GET stats         what was called, scanned, left alone
POST restart      forget the queries;  POST reset: everything
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable

from events import Event, LogGroup
from log_queries import LogQuery
from world import SWITCHES, Credential, World


class Unknown(Exception):
    """There is no such control."""


def answer(world: World, method: str, path: str, body) -> dict | list:
    name = path.removeprefix("/control/")
    run = CONTROLS.get((method, name))
    if run is None:
        raise Unknown(f"{method} {path}")
    with world.lock:
        return run(world, body)


def add_groups(world: World, body: list[dict]) -> dict:
    for order in body:
        group = LogGroup(**order)
        if group.log_class not in ("STANDARD", "INFREQUENT_ACCESS"):
            raise ValueError(f"no log class {group.log_class}")
        world.groups[group.account, group.region, group.name] = group
    return {"groups": len(world.groups)}


def add_events(world: World, body: dict) -> dict:
    """Appends to groups that exist; a file has one event a line, with its group in it."""
    gc.disable()  # nothing here is garbage, and 300,000 new objects would have it looked for again and again
    try:
        if "file" in body:
            with open(body["file"], encoding="utf-8") as lines:
                return load(world, map(json.loads, lines))
        place = {name: body[name] for name in ("log_group", "account", "region")}
        return load(world, ({**place, **event} for event in body["events"]))
    finally:
        gc.enable()
        gc.freeze()


def load(world: World, events: Iterable[dict]) -> dict:
    by_group: dict[tuple, list[Event]] = {}
    for event in events:
        key = (event["account"], event["region"], event["log_group"])
        made = Event(event["timestamp"], event.get("queryable", event["timestamp"]), event["message"])
        by_group.setdefault(key, []).append(made)
    for key in by_group:
        if key not in world.groups:
            raise ValueError(f"no log group {key}")
    for key, made in by_group.items():
        world.groups[key].append(made)
    return {"events": sum(map(len, by_group.values()))}


def set_clock(world: World, body: dict) -> dict:
    world.clock.set(body)
    return {"now_ms": world.clock.now_ms()}


def get_clock(world: World, body) -> dict:
    return {"now_ms": world.clock.now_ms()}


def add_credentials(world: World, body: list[dict]) -> dict:
    """Adds, or replaces by access key."""
    for order in body:
        credential = Credential(**order)
        world.credentials[credential.access_key] = credential
    return {"credentials": len(world.credentials)}


def set_switches(world: World, body: dict) -> dict:
    if unknown := set(body) - set(SWITCHES):
        raise ValueError(f"no switch {sorted(unknown)}")
    for name, value in body.items():
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name} is one of {CHOICES[name]}")
    world.switches.update(body)
    return world.switches


CHOICES = {
    "missing_key": ("absent", "empty"),
    "end_inclusive": ("second", "millisecond"),
    "number_format": ("plain", "scientific"),
    "statistics": ("all", "three"),
    "boolean": ("1/0", "true/false"),
    "literal_in_coalesce": ("ok", "refused"),
    "field_order": ("as_written", "shuffled"),
}


def get_switches(world: World, body) -> dict:
    return world.switches


def add_faults(world: World, body: list[dict]) -> dict:
    world.faults.append(body)
    return {"pending": len(world.faults.pending)}


def clear_faults(world: World, body) -> dict:
    world.faults.clear()
    return {"pending": 0}


def restart(world: World, body) -> dict:
    world.forget_queries()
    return {}


def reset(world: World, body) -> dict:
    world.reset()
    return {}


def stats(world: World, body) -> dict:
    now = world.clock.now_ms()
    for query in world.queries.values():
        query.age(now)
    return {
        "calls": world.calls,
        "errors": world.errors,
        "peak_starts_per_second": world.rates.peaks("StartQuery"),
        "peak_polls_per_second": world.rates.peaks("GetQueryResults"),
        "peak_running": world.peak_running,
        "bytes_scanned_started": sum(query.bytes_scanned for query in world.history),
        "bytes_scanned_completed": sum(query.bytes_scanned for query in world.history if query.status() == "Complete"),
        "bytes_held": [
            {"log_group": group.name, "account": group.account, "region": group.region, "bytes": group.stored_bytes()}
            for group in world.groups.values()
        ],
        "queries": [query_stats(query) for query in world.history],
        "orphans": [query.id for query in world.history if query.orphaned()],
        "broken": world.broken,
        "signed_with": sorted(world.signed_with),
    }


def query_stats(query: LogQuery) -> dict:
    return {
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


CONTROLS = {
    ("POST", "groups"): add_groups,
    ("POST", "events"): add_events,
    ("POST", "clock"): set_clock,
    ("GET", "clock"): get_clock,
    ("POST", "credentials"): add_credentials,
    ("POST", "switches"): set_switches,
    ("GET", "switches"): get_switches,
    ("POST", "faults"): add_faults,
    ("DELETE", "faults"): clear_faults,
    ("GET", "stats"): stats,
    ("POST", "restart"): restart,
    ("POST", "reset"): reset,
}
