"""Operations of CloudWatch Logs: StartQuery, GetQueryResults, StopQuery, DescribeQueries, DescribeLogGroups,
DescribeFieldIndexes."""

from __future__ import annotations

import base64
import json
import re

import cwli
from calls import Call
from errors import AwsError
from events import LogGroup
from log_queries import ENDED, LogQuery, Selection

GROUP_ARN = re.compile(r"arn:aws:logs:([a-z0-9-]+):(\d{12}):log-group:([^:*]+)")
IDENTIFIER = re.compile(r"[\w#+=/:,.@-]{1,2048}")  # BC-logs LogGroupIdentifier: no `*`
GROUP_NAME = re.compile(r"[.\-_/#A-Za-z0-9]{1,512}")
TOKEN_LIFE_MS = 60 * 60_000  # BC-logs GetQueryResults nextToken


def invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def whole(call: Call, name: str, least: int, most: int, default: int | None = None) -> int | None:
    """An integer parameter within its bounds."""
    value = call.parameters.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise AwsError("SerializationException", f"{name} is not a number")
    if not least <= value <= most:
        raise invalid(f"Value '{value}' at '{name}' failed to satisfy constraint: between {least} and {most}")
    return value


def required(call: Call, name: str) -> object:
    if call.parameters.get(name) is None:
        raise invalid(f"Value null at '{name}' failed to satisfy constraint: Member must not be null")
    return call.parameters[name]


def named_groups(call: Call) -> list[LogGroup]:
    """The groups of a StartQuery: exactly one of its three parameters names them (API_StartQuery)."""
    names = ("logGroupName", "logGroupNames", "logGroupIdentifiers")
    given = [name for name in names if call.parameters.get(name) not in (None, [])]
    if len(given) != 1:
        raise invalid("Exactly one of logGroupName, logGroupNames, logGroupIdentifiers must be given")
    value = call.parameters[given[0]]
    asked = [value] if given[0] == "logGroupName" else value
    if type(asked) is not list or not all(type(name) is str for name in asked):
        raise AwsError("SerializationException", f"{given[0]} has the wrong type")
    if len(asked) > 50:
        raise invalid(f"Value at '{given[0]}' failed to satisfy constraint: at most 50 log groups")
    find = group_by_identifier if given[0] == "logGroupIdentifiers" else group_by_name
    return list({(group := find(call, name)).arn: group for name in asked}.values())


def group_by_name(call: Call, name: str) -> LogGroup:
    if not GROUP_NAME.fullmatch(name):
        raise invalid(f"Value '{name}' at 'logGroupName' failed to satisfy constraint: {GROUP_NAME.pattern}")
    return found_group(call, call.account, name)


def group_by_identifier(call: Call, identifier: str) -> LogGroup:
    """A name, or an ARN without `*` at its end; that of another account needs a monitoring account."""
    if not IDENTIFIER.fullmatch(identifier):
        raise invalid(
            f"Value '{identifier}' at 'logGroupIdentifiers' failed to satisfy constraint: {IDENTIFIER.pattern}"
        )
    if not identifier.startswith("arn:"):
        return group_by_name(call, identifier)
    arn = GROUP_ARN.fullmatch(identifier)
    if arn is None or arn[1] != call.region:
        raise invalid(f"Invalid log group ARN: {identifier}")
    if arn[2] != call.account and arn[2] not in call.credential.monitors:
        raise AwsError("ResourceNotFoundException", f"Log group '{identifier}' does not exist or is not linked")
    return found_group(call, arn[2], arn[3])


def found_group(call: Call, account: str, name: str) -> LogGroup:
    group = call.world.groups.get((account, call.region, name))
    if group is None:
        raise AwsError(
            "ResourceNotFoundException",
            f"Log group '{name}' does not exist for account ID '{account}'",
        )
    return group


def start_query(call: Call) -> dict:
    world = call.world
    call.check_rate("starts_per_second")
    text = required(call, "queryString")
    required(call, "startTime"), required(call, "endTime")
    start, end = whole(call, "startTime", 0, 2**63 - 1), whole(call, "endTime", 0, 2**63 - 1)
    limit = whole(call, "limit", 1, 100_000)
    if call.parameters.get("queryLanguage", "CWLI") != "CWLI":
        raise invalid("the double speaks only queryLanguage CWLI")
    if type(text) is not str:
        raise AwsError("SerializationException", "queryString is not a string")
    if end < start:
        raise invalid("End time should not be less than start time")
    groups = named_groups(call)
    now = world.clock.now_ms()
    check_window(groups, start, end, now)
    program = compiled(call, text, now)
    check_running(call)
    last_ms = end * 1000 + (999 if world.switches["end_inclusive"] == "second" else 0)
    selections = [Selection(group, group.select(start * 1000, last_ms, now)) for group in groups]
    query = LogQuery(
        call.account, call.region, text, start, end, limit, program, selections, dict(world.switches), now, call.fate
    )
    if query.fate == "vanish":
        query.forgotten = True
    else:
        world.queries[query.id] = query
    world.history.append(query)
    count_running(call)
    return {"queryId": query.id}


def compiled(call: Call, text: str, now_ms: int) -> cwli.Program:
    switches = call.world.switches
    options = cwli.Options(
        not_equal_absent=switches["not_equal_absent"],
        literal_in_coalesce=switches["literal_in_coalesce"] == "ok",
        stats_group_cap=switches["stats_group_cap"],
        now_ms=now_ms,
    )
    try:
        return cwli.compile_query(text, options)
    except cwli.Refused as refusal:
        raise malformed(refusal.message, refusal.start, refusal.end) from None


def check_window(groups: list[LogGroup], start: int, end: int, now_ms: int) -> None:
    """A range that lies wholly before all groups is an error and not an empty answer; many programs quote it."""
    if end * 1000 < min(group.oldest_ms(now_ms) for group in groups):
        raise malformed(
            "Query's end date and time is either before the log groups creation time or exceeds the log groups "
            f"log retention settings ([{start},{end}])"
        )


def malformed(message: str, start: int = 0, end: int = 0) -> AwsError:
    error = {"location": {"startCharOffset": start, "endCharOffset": end}, "message": message}
    return AwsError("MalformedQueryException", message, queryCompileError=error)


def running(call: Call) -> int:
    now = call.world.clock.now_ms()
    here = [
        query for query in call.world.queries.values() if (query.account, query.region) == (call.account, call.region)
    ]
    for query in here:
        query.age(now)
    return sum(not query.ended() for query in here)


def check_running(call: Call) -> None:
    most = call.world.switches["concurrent_queries"]
    if running(call) >= most:
        raise AwsError("LimitExceededException", f"Account maximum query concurrency limit of [{most}] reached")


def count_running(call: Call) -> None:
    peaks = call.world.peak_running
    peaks[call.place] = max(peaks.get(call.place, 0), running(call))


def found_query(call: Call) -> LogQuery:
    """The query asked for; unknown to other accounts and Regions, and once its time is over."""
    query = call.world.queries.get(required(call, "queryId"))
    now = call.world.clock.now_ms()
    foreign = query is not None and (query.account, query.region) != (call.account, call.region)
    if query is None or foreign or query.expired(now):
        raise AwsError("ResourceNotFoundException", f"Query {call.parameters['queryId']} does not exist")
    query.age(now)
    return query


def get_query_results(call: Call) -> dict:
    world = call.world
    with world.lock:
        call.check_rate("polls_per_second")
        most = whole(call, "maxItems", 0, 10_000) or 10_000  # what 0 means is [U]: taken as not given
        query = found_query(call)
        first = token_offset(call, query)
        query.polls += 1
        status = query.status()
    answer: dict = {"queryLanguage": "CWLI", "results": [], "status": status}
    if status == "Running" and query.switches["partial_rows"]:
        rows, matched = query.partial_results()
        scanned = min(matched, query.records_scanned)
        answer["results"] = query.as_wire(rows[:most], 0)
        answer["statistics"] = query.statistics(matched, scanned, query.bytes_scanned // 2, len(rows))
    elif status == "Complete":
        rows = query.results()
        after = min(first + most, len(rows))
        answer["results"] = query.as_wire(rows[first:after], first)
        answer["statistics"] = query.statistics(
            query.records_matched, query.records_scanned, query.bytes_scanned, len(rows)
        )
        if after < len(rows):
            answer["nextToken"] = next_token(query, after, world.clock.now_ms())
        query.note_read(first, after)
    else:
        answer["statistics"] = query.statistics(0, 0, 0, 0)
    return answer


def next_token(query: LogQuery, offset: int, now_ms: int) -> str:
    return base64.b64encode(json.dumps([query.id, offset, now_ms]).encode()).decode()


def token_offset(call: Call, query: LogQuery) -> int:
    token = call.parameters.get("nextToken")
    if token is None:
        return 0
    try:
        owner, offset, made_ms = json.loads(base64.b64decode(token, validate=True))
    except (ValueError, TypeError):
        raise invalid("The specified nextToken is invalid.") from None
    if owner != query.id or call.world.clock.now_ms() - made_ms > TOKEN_LIFE_MS:
        raise invalid("The specified nextToken is invalid.")
    return offset


def stop_query(call: Call) -> dict:
    query = found_query(call)
    if query.ended():
        raise invalid(f"Query {query.id} is not running")  # API_StopQuery: an error, not success false
    query.stopped = True
    query.selections = []
    return {"success": True}


def describe_queries(call: Call) -> dict:
    most = whole(call, "maxResults", 1, 1000, 1000)
    wanted, group = call.parameters.get("status"), call.parameters.get("logGroupName")
    if wanted is not None and wanted not in ("Scheduled", "Running", *ENDED):
        raise invalid(f"Value '{wanted}' at 'status' failed to satisfy constraint")
    if group is not None:
        group_by_name(call, group)
    mine = [
        query
        for query in reversed(call.world.queries.values())
        if (query.account, query.region) == (call.account, call.region)
        and wanted in (None, query.status())
        and (group is None or group in query.log_group_names)
    ]
    page, rest = paged(call, mine, most)
    return {"queries": [query_info(query) for query in page], **rest}


def query_info(query: LogQuery) -> dict:
    return {
        "queryLanguage": "CWLI",
        "queryId": query.id,
        "queryString": query.query_string,
        "status": query.status(),
        "createTime": query.created_ms,
        "logGroupName": query.log_group_names[0],
        "bytesScanned": float(query.bytes_scanned),
    }


def describe_log_groups(call: Call) -> dict:
    given = call.parameters
    call.check_rate("describes_per_second")
    prefix, pattern = given.get("logGroupNamePrefix"), given.get("logGroupNamePattern")
    if prefix is not None and pattern is not None:
        raise invalid("logGroupNamePrefix and logGroupNamePattern are mutually exclusive")
    most = whole(call, "limit", 1, 50, 50)
    groups = [group for group in visible_groups(call) if group.name.startswith(prefix or "")]
    if pattern is not None:
        groups = [group for group in groups if pattern in group.name]
    if given.get("logGroupClass"):
        groups = [group for group in groups if group.log_class == given["logGroupClass"]]
    if given.get("logGroupIdentifiers"):
        if prefix or pattern or given.get("logGroupClass"):
            raise invalid("logGroupIdentifiers can be combined only with includeLinkedAccounts")
        asked = set(given["logGroupIdentifiers"])
        groups = [group for group in groups if group.name in asked or group.arn in asked]
    page, rest = paged(call, groups, most)
    return {"logGroups": [group_info(group, brief=pattern is not None) for group in page], **rest}


def visible_groups(call: Call) -> list[LogGroup]:
    """Groups of this account, and of linked ones if asked, in the order of their names."""
    accounts = {call.account}
    if call.parameters.get("includeLinkedAccounts"):
        linked = {call.account, *call.credential.monitors}
        asked = call.parameters.get("accountIdentifiers") or linked
        accounts = linked & set(asked)
    groups = [
        group for group in call.world.groups.values() if group.region == call.region and group.account in accounts
    ]
    return sorted(groups, key=lambda group: (group.name, group.account))


def group_info(group: LogGroup, brief: bool) -> dict:
    """`arn` ends with `:*`, for policies; `logGroupArn` does not, for logGroupIdentifiers (BC-logs LogGroup)."""
    info = {"logGroupName": group.name, "arn": f"{group.arn}:*", "creationTime": group.creation_ms}
    if brief:
        return info  # with logGroupNamePattern only these come back
    if group.retention_days is not None:
        info["retentionInDays"] = group.retention_days
    size = group.stored_bytes()
    return info | {
        "storedBytes": size,
        "logGroupClass": group.log_class,
        "logGroupArn": group.arn,
        "metricFilterCount": 0,
    }


def describe_field_indexes(call: Call) -> dict:
    """The indexes of groups (BC-logs FieldIndex); the double's queries do not use them."""
    groups = [group_by_identifier(call, name) for name in required(call, "logGroupIdentifiers")]
    indexes = [
        {"logGroupIdentifier": group.arn, "fieldIndexName": name, "firstEventTime": group.creation_ms}
        for group in groups
        for name in group.field_indexes
    ]
    return {"fieldIndexes": indexes}


def paged(call: Call, items: list, most: int) -> tuple[list, dict]:
    token = call.parameters.get("nextToken")
    if token is not None and not str(token).isdigit():
        raise invalid("The specified nextToken is invalid.")
    first = int(token or 0)
    after = first + most
    return items[first:after], {"nextToken": str(after)} if after < len(items) else {}


OPERATIONS = {
    "StartQuery": start_query,
    "StopQuery": stop_query,
    "DescribeQueries": describe_queries,
    "DescribeLogGroups": describe_log_groups,
    "DescribeFieldIndexes": describe_field_indexes,
}
# These lock the world themselves, and not while they evaluate.
UNLOCKED = {"GetQueryResults": get_query_results}
