"""The tests' own side of the double: unsigned JSON under /control/. A wrong order is answered 400.

POST groups       [{"name", "account", "region", "class", "creationTime", "retentionInDays", "fieldIndexes"}]
POST stores       [{"id", "account", "region", "name", "status", "creationTime", "partition_keys", "multi_region",
                  "organization"}] event data stores; status as GetEventDataStore has it, or INACTIVE
POST tables       [{"catalog", "database", "table", "account", "region", "layout", "key_exchange"}] of Athena; a layout
                  is timestamp, year_month_day, organization or lake (database aws:cloudtrail, table the store's id: a
                  store of that id is shown, else it has records of its own)
POST workgroups   [{"name", "account", "region", "output_location", "enforce", "managed", "cutoff_bytes"}]
POST events       {PLACE, "events": [{"timestamp", "queryable", "message"}]}, or {"file": path} of lines
                  {PLACE, "timestamp", "queryable", "message"}; either with "to": [PLACE, ...], whatever the lines say.
                  A PLACE is {"log_group", "account", "region"}, {"event_data_store": id},
                  {"table": "database.table"} (with "account" and "region" if there are several), or
                  {"event_history": true, "account", "region"}
POST, GET clock   {"set_ms"} frozen there | {"advance_ms"} | {"real": true, "offset_ms"}
POST credentials  [{"access_key", "secret", "session_token", "account", "expires_ms", "denied", "monitors",
                  "delegates_for"}]; expires_ms by the double's clock
POST roles        [{"arn", "trusts": [account, ...], "external_id", "denied", "monitors", "delegates_for",
                  "expires_in_seconds", "max_session_seconds"}] that sts:AssumeRole finds, see roles.py
POST sts          {"start": true} starts moto's STS now; else it starts when it is first asked
POST, GET switches  some or all of world.SWITCHES
POST, DELETE faults  [{"operation", "skip", "times", "action"}], see faults.py
GET stats         what was called, scanned, left alone: see stats.py
POST restart      forget the queries;  POST reset: everything
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable
from itertools import starmap

from events import Event, LogGroup
from history import EventHistory
from roles import Role
from stats import stats
from trail_tables import WorkGroup
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


def add_stores(world: World, body: list[dict]) -> dict:
    for order in body:
        world.trail.add_store(order)
    return {"stores": len(world.trail.stores)}


def add_tables(world: World, body: list[dict]) -> dict:
    for order in body:
        world.trail.add_table(order)
    return {"tables": len(world.trail.tables)}


def add_workgroups(world: World, body: list[dict]) -> dict:
    for order in body:
        group = WorkGroup(**order)
        world.trail.workgroups[group.account, group.region, group.name] = group
    return {"workgroups": len(world.trail.workgroups)}


def add_events(world: World, body: dict) -> dict:
    """Appends to places that exist; a file has one event a line, with its place in it unless all are told."""
    gc.disable()  # nothing here is garbage, and 300,000 new objects would have it looked for again and again
    try:
        if "file" not in body:
            return load(world, body["events"], body.get("to", [body]))
        with open(body["file"], encoding="utf-8") as lines:
            return load(world, map(json.loads, lines), body.get("to"))
    finally:
        gc.enable()
        gc.freeze()


PLACE = ("log_group", "event_data_store", "table", "event_history", "account", "region")


def load(world: World, events: Iterable[dict], to: list[dict] | None) -> dict:
    """Finds all places before it appends to any; without `to` each event tells its own."""
    deliveries: dict[tuple, list[tuple[int, int, str]]] = {}
    for event in events:
        key = tuple(event.get(name) for name in PLACE) if to is None else ()
        made = (event["timestamp"], event.get("queryable", event["timestamp"]), event["message"])
        deliveries.setdefault(key, []).append(made)
    if to is None:
        places = [dict(zip(PLACE, key, strict=True)) for key in deliveries]
        orders = list(zip(places, deliveries.values(), strict=True))
    else:
        orders = [(place, deliveries.get((), [])) for place in to]
    appends = [(appender(world, place), made) for place, made in orders]
    for append, made in appends:
        append(made)
    return {"events": sum(len(made) for _, made in appends)}


def appender(world: World, place: dict) -> Callable[[list[tuple[int, int, str]]], None]:
    """What takes deliveries of (timestamp, queryable, message) to a place."""
    place = {name: place[name] for name in PLACE if place.get(name)}
    named = [name for name in PLACE[:4] if name in place]
    if len(named) != 1:
        raise ValueError(f"not one place: {named}")
    if named == ["log_group"]:
        key = (place["account"], place["region"], place["log_group"])
        if key not in world.groups:
            raise ValueError(f"no log group {key}")
        return lambda made: world.groups[key].append(list(starmap(Event, made)))
    if named == ["event_history"]:
        account, region = place["account"], place["region"]
        found = world.event_histories.setdefault((account, region), EventHistory(region))
    else:
        found = world.trail.place(place)
    return lambda made: found.append([(queryable, message) for _, queryable, message in made])


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


def add_roles(world: World, body: list[dict]) -> dict:
    """Adds, or replaces by ARN; sessions that were given out stay as they are."""
    for order in body:
        role = Role(**order)
        world.roles[role.arn] = role
    return {"roles": len(world.roles)}


def start_sts(world: World, body: dict) -> dict:
    if body != {"start": True}:
        raise ValueError('no order but {"start": true}')
    return {"port": world.sts.port()}


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
    "lake_columns": ("as_written", "lower"),
    "lake_null": ("absent", "empty", "null"),
    "lake_key_exchange": ("absent", "column"),
    "lake_checks_columns": ("at_start", "while_running"),
    "lake_prunes": ("calendarday", "time"),
    "athena_syntax": ("at_start", "while_running"),
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


CONTROLS = {
    ("POST", "groups"): add_groups,
    ("POST", "stores"): add_stores,
    ("POST", "tables"): add_tables,
    ("POST", "workgroups"): add_workgroups,
    ("POST", "events"): add_events,
    ("POST", "clock"): set_clock,
    ("GET", "clock"): get_clock,
    ("POST", "credentials"): add_credentials,
    ("POST", "roles"): add_roles,
    ("POST", "sts"): start_sts,
    ("POST", "switches"): set_switches,
    ("GET", "switches"): get_switches,
    ("POST", "faults"): add_faults,
    ("DELETE", "faults"): clear_faults,
    ("GET", "stats"): stats,
    ("POST", "restart"): restart,
    ("POST", "reset"): reset,
}
