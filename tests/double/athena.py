"""Athena: StartQueryExecution, GetQueryExecution, GetQueryResults, StopQueryExecution, GetWorkGroup,
GetTableMetadata."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from sqlglot import exp

import executions
import sql
from calls import Call
from errors import AwsError
from executions import Execution
from trail_tables import TrailData, TrailTable, WorkGroup
from trino import SqlError

RUN_MS = 30 * 60_000  # service-limits: DML queries time out after 30 minutes by default
KEPT_MS = 45 * 86_400_000  # service-limits: the history of a query is kept 45 days
STATES = {
    "queued": "QUEUED",
    "running": "RUNNING",
    "finished": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "timed_out": "FAILED",
    "cut_off": "CANCELLED",
}
CUT_OFF = "Bytes scanned limit was exceeded"
SYSTEM, USER = 1, 2  # BC-ath AthenaError ErrorCategory
# error-reference of the Athena guide: "Query exhausted resources at this scale factor", "Query engine had an internal
# error", "Query timed out", "User error". Which numbers Athena really gives is [U].
EXHAUSTED_TYPE, ENGINE_TYPE, TIMEOUT_TYPE, USER_TYPE = 0, 200, 206, 1000


@dataclass
class Started:
    """What a ClientRequestToken was used for."""

    parameters: str
    query_id: str


def invalid(message: str, code: str = "INVALID_INPUT") -> AwsError:
    return AwsError("InvalidRequestException", message, AthenaErrorCode=code)


def start_query_execution(call: Call) -> dict:
    call.check_rate("athena_starts_per_second")
    world, given = call.world, call.parameters
    text, token = given.get("QueryString"), given.get("ClientRequestToken")
    if type(text) is not str or not 1 <= len(text) <= 262_144:
        raise invalid("QueryString must have 1 to 262144 characters")
    if token is not None and not 32 <= len(token) <= 128:
        raise invalid("ClientRequestToken must have 32 to 128 characters")
    key = (call.account, call.region, token)
    parameters = json.dumps({name: given[name] for name in given if name != "ClientRequestToken"}, sort_keys=True)
    if token is not None and key in world.request_tokens:
        started = world.request_tokens[key]
        if started.parameters != parameters:
            raise invalid("Idempotent parameters do not match")
        return {"QueryExecutionId": started.query_id}
    group = found_workgroup(call, given.get("WorkGroup", "primary"))
    location = output_location(call, group)
    statement, refusal = read(call, text)
    most = world.switches["athena_concurrent_queries"]
    if executions.running(call) >= most:
        raise AwsError(
            "TooManyRequestsException",
            "You have exceeded the limit for the number of queries you can run concurrently.",
            Reason="CONCURRENT_QUERY_LIMIT_EXCEEDED",
        )
    query = Execution(
        service=call.service,
        account=call.account,
        region=call.region,
        text=text,
        statement=statement,
        refusal=refusal,
        base=world.trail.base,
        switches=dict(world.switches),
        created_ms=world.clock.now_ms(),
        states=STATES,
        run_ms=RUN_MS,
        kept_ms=KEPT_MS,
        fate=call.fate,
        token=token,
        cutoff_bytes=group.cutoff_bytes,
        requeues=world.switches["athena_requeues"],
        request={"WorkGroup": group.name, "OutputLocation": location, "Context": context(call)},
    )
    executions.add(call, query)
    if token is not None:
        world.request_tokens[key] = Started(parameters, query.id)
    return {"QueryExecutionId": query.id}


def context(call: Call) -> dict:
    return call.parameters.get("QueryExecutionContext") or {}


def found_workgroup(call: Call, name: object) -> WorkGroup:
    group = call.world.trail.workgroup(call.account, call.region, name) if isinstance(name, str) else None
    if group is None:
        raise invalid(f"WorkGroup {name} is not found.")
    return group


def output_location(call: Call, group: WorkGroup) -> str | None:
    """From the request or the workgroup; one that enforces its configuration overrides, one that manages has none."""
    asked = (call.parameters.get("ResultConfiguration") or {}).get("OutputLocation")
    if group.managed:
        if asked is not None:
            raise invalid("OutputLocation must not be set: the workgroup has managed query results")
        return None
    location = group.output_location if group.enforce else asked or group.output_location
    if location is None:
        raise invalid(
            "No output location provided. An output location is required either through the Workgroup result "
            "configuration setting or as an API input."
        )
    if not location.startswith("s3://"):
        raise invalid("outputLocation is not a valid S3 path.")
    return location


def read(call: Call, text: str) -> tuple[sql.Statement | None, SqlError | None]:
    """The statement, or what will be wrong with it when it runs."""

    def resolve(table: exp.Table) -> TrailTable:
        catalog = table.catalog or context(call).get("Catalog", "AwsDataCatalog")
        path = TrailData.path(catalog, table.db or context(call).get("Database", "default"), table.name)
        found = call.world.trail.tables.get((call.account, call.region, *path))
        if found is None:
            name = ".".join(path)
            raise SqlError("TABLE_NOT_FOUND", f"{sql.place(text, table.name)}: Table '{name}' does not exist")
        return found.view()

    try:
        statement = sql.compile_statement(text, resolve, call.world.clock.now_ms(), time_as_text=False)
        executions.bound(call.world.trail.base, statement)
        return statement, None
    except SqlError as error:
        grammar = error.kind in ("SYNTAX_ERROR", "NOT_SUPPORTED")
        if grammar and call.world.switches["athena_syntax"] == "at_start":
            raise invalid(error.message, "MALFORMED_QUERY") from None
        return None, error


def found_query(call: Call) -> Execution:
    query_id = call.parameters.get("QueryExecutionId")
    return executions.found(call, query_id, invalid(f"QueryExecution {query_id} was not found"))


def get_query_execution(call: Call) -> dict:
    with call.world.lock:
        call.check_rate("athena_polls_per_second")
        query = found_query(call)
        query.polls += 1
    phase = query.phase()
    status = {"State": STATES[phase], "SubmissionDateTime": query.created_ms / 1000}
    if phase not in executions.WAITING:
        status["CompletionDateTime"] = query.created_ms / 1000 + query.polls
    status |= reason(query, phase)
    scanned = 0 if phase == "queued" else query.outcome().scanned.bytes
    execution = {
        "QueryExecutionId": query.id,
        "Query": query.text,
        "StatementType": "DML",
        "SubstatementType": "SELECT",
        "QueryExecutionContext": query.request["Context"],
        "Status": status,
        "Statistics": {
            "DataScannedInBytes": scanned // 2 if phase == "running" else scanned,
            "EngineExecutionTimeInMillis": 900 * query.polls,
            "TotalExecutionTimeInMillis": 1000 * query.polls,
            "QueryQueueTimeInMillis": 50,
            "ServiceProcessingTimeInMillis": 50,
            "ResultReuseInformation": {"ReusedPreviousResult": False},
        },
        "WorkGroup": query.request["WorkGroup"],
        "EngineVersion": {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"},
    }
    location = query.request["OutputLocation"]
    if location is None:
        execution["ManagedQueryResultsConfiguration"] = {"Enabled": True}
    else:
        execution["ResultConfiguration"] = {"OutputLocation": f"{location.rstrip('/')}/{query.id}.csv"}
    return {"QueryExecution": execution}


def reason(query: Execution, phase: str) -> dict:
    """Why the state is what it is."""
    if phase == "cut_off":
        return {"StateChangeReason": CUT_OFF}
    if phase == "cancelled":
        return {"StateChangeReason": "Query cancelled by user"} if query.stopped else {}
    if phase == "timed_out":
        return failed("Query timeout", USER, TIMEOUT_TYPE)
    if phase != "failed":
        return {}
    if query.fate == "exhausted":
        return failed(executions.EXHAUSTED, USER, EXHAUSTED_TYPE)
    if query.fate == "retryable":
        return failed("INTERNAL_ERROR_QUERY_ENGINE", SYSTEM, ENGINE_TYPE, retryable=True)
    if query.fate is not None:
        return failed("GENERIC_USER_ERROR: Encountered an exception while executing the query", USER, USER_TYPE)
    error = query.outcome().error
    message = f"{error.kind}: {error.message}"
    if error.kind == "COLUMN_NOT_FOUND":
        message += " or requester is not authorized to access requested resources"
    return failed(message, USER, USER_TYPE)


def failed(message: str, category: int, kind: int, retryable: bool = False) -> dict:
    error = {"ErrorCategory": category, "ErrorType": kind, "Retryable": retryable, "ErrorMessage": message}
    return {"StateChangeReason": message, "AthenaError": error}


def get_query_results(call: Call) -> dict:
    with call.world.lock:
        call.check_rate("athena_results_per_second")
        most = call.parameters.get("MaxResults", 1000)
        if type(most) is not int or not 1 <= most <= 1000:
            raise invalid("MaxResults must be between 1 and 1000")
        query = found_query(call)
        first = query.offset(call.parameters.get("NextToken"))
    if first is None:
        raise invalid("Invalid NextToken")
    phase = query.phase()
    if phase in executions.WAITING:
        raise invalid(f"Query has not yet finished. Current state: {STATES[phase]}")
    if phase != "finished":
        raise invalid(f"Query did not finish successfully. Final query state: {STATES[phase]}")
    outcome = query.outcome()
    names = [name.lower() for name in query.statement.names]
    rows = [tuple(names), *outcome.rows] if query.switches["athena_header"] else outcome.rows
    after = min(first + most, len(rows))
    columns = [column_info(name, kind) for name, kind in zip(names, outcome.types, strict=True)]
    result = {
        "Rows": [
            {"Data": [{} if value is None else {"VarCharValue": value} for value in row]} for row in rows[first:after]
        ],
        "ResultSetMetadata": {"ColumnInfo": columns},
    }
    query.note_read(first, after, len(rows))
    more = {"NextToken": query.next_token(after)} if after < len(rows) else {}
    return {"UpdateCount": 0, "ResultSet": result, **more}


def column_info(name: str, kind: str) -> dict:
    return {
        "CatalogName": "hive",
        "SchemaName": "",
        "TableName": "",
        "Name": name,
        "Label": name,
        "Type": kind,
        "Precision": 2_147_483_647 if kind == "varchar" else 0,
        "Scale": 0,
        "Nullable": "UNKNOWN",
        "CaseSensitive": kind == "varchar",
    }


def stop_query_execution(call: Call) -> dict:
    """Of one that has ended too: nothing happens then, [U]."""
    call.check_rate("athena_stops_per_second")
    query = found_query(call)
    if not query.ended():
        query.stopped = True
    return {}


def get_work_group(call: Call) -> dict:
    group = found_workgroup(call, call.parameters.get("WorkGroup"))
    configuration = {
        "ResultConfiguration": {} if group.output_location is None else {"OutputLocation": group.output_location},
        "EnforceWorkGroupConfiguration": group.enforce,
        "PublishCloudWatchMetricsEnabled": True,
        "RequesterPaysEnabled": False,
        "EngineVersion": {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"},
        "ManagedQueryResultsConfiguration": {"Enabled": group.managed},
    }
    if group.cutoff_bytes is not None:
        configuration["BytesScannedCutoffPerQuery"] = group.cutoff_bytes
    return {"WorkGroup": {"Name": group.name, "State": "ENABLED", "Configuration": configuration}}


def get_table_metadata(call: Call) -> dict:
    """The columns as Glue has them: types in the words of Hive (BC-ath TableMetadata)."""
    given = call.parameters
    path = TrailData.path(*(str(given.get(name)) for name in ("CatalogName", "DatabaseName", "TableName")))
    table = call.world.trail.tables.get((call.account, call.region, *path))
    if table is None:
        raise AwsError("MetadataException", f"EntityNotFoundException: Entity Not Found: {path[2]}")
    view = table.view()
    columns = [{"Name": name, "Type": hive(kind)} for name, kind in view.schema().items()]
    keys = [column for column in columns if column["Name"] in view.partitions]
    metadata = {
        "Name": table.table,
        "TableType": "EXTERNAL_TABLE",
        "Columns": [column for column in columns if column not in keys],
        "PartitionKeys": keys,
    }
    return {"TableMetadata": metadata}


def hive(kind: str) -> str:
    """`ROW(a varchar)` is `struct<a:string>`."""
    kind = re.sub(r"(\w+) (varchar|ROW)", r"\1:\2", kind).replace(", ", ",")
    return kind.replace("ROW(", "struct<").replace(")", ">").replace("varchar", "string")


OPERATIONS = {
    "StartQueryExecution": start_query_execution,
    "StopQueryExecution": stop_query_execution,
    "GetWorkGroup": get_work_group,
    "GetTableMetadata": get_table_metadata,
}
# These lock the world themselves, and not while they evaluate.
UNLOCKED = {"GetQueryExecution": get_query_execution, "GetQueryResults": get_query_results}
