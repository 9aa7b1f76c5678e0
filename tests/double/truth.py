"""What the exporter must show of some log events, by DuckDB over the records themselves.

python truth.py EVENTS FROM_MS TO_MS WINDOW_FROM_MS  reads a file of lines as /control/events takes it, and prints the
samples of the data block as `metric{label="value",...} number`, without the label `source`, sorted. Events from
FROM_MS on and before TO_MS are counted; gauges cover those from WINDOW_FROM_MS on. Words may follow:

event       a call is told by its record's eventTime, not by `timestamp`, and records of one eventID are one call
management  only management events, as CloudTrail's event history has them
in=REGION   only events of this Region, or of none, as the same
unreported  no key exchange, as of a source whose schema has none
callers=SECONDS  instead, who made the outdated calls of each bucket of so many seconds: lines of JSON, [start of the
            bucket in seconds, service, call, version, account, principal, user agent, source address, calls]
"""

import json
import sys
from collections import Counter

import duckdb

KEY_EXCHANGES = ["x25519", "x448", "secp256r1", "secp384r1", "secp521r1"]
POST_QUANTUM = [
    "x25519mlkem768",
    "secp256r1mlkem768",
    "secp384r1mlkem1024",
    "x25519kyber768draft00",
    "secp256r1kyber768draft00",
]

# Each call with its labels, as README.md's "What the numbers mean" defines them.
CALLS = """
CREATE TABLE calls AS
WITH lines AS (
    SELECT timestamp, queryable, message::JSON AS r
    FROM read_json(?, format = 'newline_delimited',
        columns = {timestamp: 'BIGINT', queryable: 'BIGINT', message: 'VARCHAR'})
), records AS (
    SELECT {time} AS timestamp, r, r->'$.tlsDetails' AS t FROM lines WHERE {time} >= ? AND {time} < ? AND {kept}
    QUALIFY {first}
), texts AS (
    SELECT timestamp, json_type(t) = 'OBJECT' AS tls,
        coalesce(r->>'$.eventSource', '') AS source, coalesce(r->>'$.eventName', '') AS event,
        coalesce(r->>'$.recipientAccountId', '') AS account, coalesce(r->>'$.awsRegion', '') AS region,
        coalesce(t->>'$.tlsVersion', '') AS version, coalesce(t->>'$.cipherSuite', '') AS cipher,
        {exchange} AS exchange, r->'$.userIdentity' AS who,
        r->>'$.userAgent' AS user_agent, r->>'$.sourceIPAddress' AS source_ip,
        epoch(strptime(r->>'$.eventTime', '%Y-%m-%dT%H:%M:%SZ')) AS event_time
    FROM records
)
SELECT timestamp, event_time,
    regexp_replace(source, '[.]amazonaws[.]com$', '') AS aws_service,
    if(event = '', 'none', event) AS event_name,
    if(account = '', 'none', account) AS account_id,
    if(region = '', 'none', region) AS aws_region,
    CASE WHEN version = '' THEN 'none' WHEN version IN ('TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3') THEN version
        ELSE 'unknown' END AS tls_version,
    if(cipher = '', 'none', cipher) AS cipher_suite,
    CASE WHEN tls IS NOT TRUE THEN 'none' WHEN exchange = '' THEN 'unreported'
        WHEN list_contains(?::VARCHAR[], exchange) THEN exchange ELSE 'other' END AS key_exchange,
    CASE WHEN exchange LIKE '%mlkem%' OR exchange LIKE '%kyber%' THEN 'yes'
        WHEN list_contains(?::VARCHAR[], exchange) THEN 'no' ELSE 'unreported' END AS post_quantum,
    coalesce(nullif(who->>'$.sessionContext.sessionIssuer.arn', ''), nullif(who->>'$.arn', ''),
        nullif(who->>'$.invokedBy', ''), nullif(who->>'$.principalId', '')) AS principal, user_agent, source_ip
FROM texts WHERE source <> ''
"""
EVENT_TIME = "epoch_ms(strptime(r->>'$.eventTime', '%Y-%m-%dT%H:%M:%SZ'))"
FIRST = "r->>'$.eventID' IS NULL OR row_number() OVER (PARTITION BY r->>'$.eventID' ORDER BY queryable) = 1"
MANAGEMENT = (
    "coalesce(r->>'$.eventCategory', 'Management') = 'Management' "
    "AND coalesce(r->>'$.managementEvent', 'true') = 'true'"
)
WORDS = ("event", "management", "unreported")
OUTDATED = "tls_version IN ('TLSv1', 'TLSv1.1')"
CONTROL = "tls_version IN ('TLSv1.2', 'TLSv1.3')"
KEY = ["aws_service", "tls_version", "event_name", "account_id"]
EXCHANGE = ["aws_service", "account_id", "key_exchange", "post_quantum"]
# A gauge series of a modern version vanishes at 0; one of an outdated version stays.
IN_WINDOW = "count(*) FILTER (timestamp >= getvariable('since'))"
# Metric, labels, value, which calls, which groups.
FAMILIES = [
    ("calls_total", KEY, "count(*)", "true", "true"),
    ("window_calls", KEY, IN_WINDOW, "true", f"{IN_WINDOW} > 0 OR {OUTDATED}"),
    ("account_outdated_window_calls", ["account_id"], f"count(*) FILTER (timestamp >= getvariable('since') AND {OUTDATED})", "true", "true"),
    ("outdated_window_calls", ["aws_service", "account_id"], IN_WINDOW, OUTDATED, "true"),
    ("control_window_calls", ["account_id"], f"count(*) FILTER (timestamp >= getvariable('since') AND {CONTROL})", "true", "true"),
    ("cipher_suite_window_calls", ["aws_service", "tls_version", "cipher_suite"], IN_WINDOW, "true", f"{IN_WINDOW} > 0 OR {OUTDATED}"),
    ("key_exchange_calls_total", EXCHANGE, "count(*)", "true", "true"),
    ("account_newest_record_timestamp_seconds", ["account_id"], "max(event_time)", "true", "true"),
    ("outdated_last_call_timestamp_seconds", KEY, "max(event_time)", OUTDATED, "true"),
]


def statement(words: list[str]) -> str:
    regions = [word.removeprefix("in=") for word in words if word.startswith("in=")]
    if unknown := {word for word in words if not word.startswith("in=")} - set(WORDS):
        raise SystemExit(f"truth.py: no {sorted(unknown)}, but {WORDS}")
    kept = [MANAGEMENT] if "management" in words else ["true"]
    kept += [f"coalesce(r->>'$.awsRegion', '') IN ('', '{region}')" for region in regions]
    parts = {
        "{time}": EVENT_TIME if "event" in words else "timestamp",
        "{first}": FIRST if "event" in words else "row_number() OVER () > 0",
        "{kept}": " AND ".join(kept),
        "{exchange}": "''" if "unreported" in words else "lower(coalesce(t->>'$.keyExchange', ''))",
    }
    text = CALLS
    for name, part in parts.items():
        text = text.replace(name, part)
    return text


def calls_of(events: str, start: int, end: int, words: list[str]) -> duckdb.DuckDBPyConnection:
    """A database with the table of calls."""
    base = duckdb.connect()
    base.execute(statement(words), [events, start, end, KEY_EXCHANGES + POST_QUANTUM, KEY_EXCHANGES])
    return base


def callers(events: str, start: int, end: int, seconds: int, words: list[str] = ()) -> list[str]:
    base = calls_of(events, start, end, words)
    query = f"""SELECT timestamp // {seconds * 1000} * {seconds}, aws_service, event_name, tls_version, account_id,
        principal, user_agent, source_ip FROM calls WHERE {OUTDATED}"""
    found = Counter((bucket, *map(label, texts)) for bucket, *texts in base.execute(query).fetchall())
    return sorted(json.dumps([*caller, number]) for caller, number in found.items())


def label(text: str | None) -> str:
    """A label's value: at most 200 bytes, whole characters."""
    return (text or "").encode()[:200].decode(errors="ignore") or "none"


def samples(events: str, start: int, end: int, window: int, words: list[str] = ()) -> list[str]:
    base = calls_of(events, start, end, words)
    base.execute(f"SET VARIABLE since = {window}")
    lines = []
    for name, labels, value, calls, groups in FAMILIES:
        keys = ", ".join(labels)
        query = f"SELECT {keys}, {value} FROM calls WHERE {calls} GROUP BY {keys} HAVING {groups}"
        for *texts, number in base.execute(query).fetchall():
            pairs = ",".join(f'{label}="{text}"' for label, text in sorted(zip(labels, texts)))
            lines.append(f"cloudtrail_tls_{name}{{{pairs}}} {round(number)}")
    return sorted(lines)


if __name__ == "__main__":
    file, start, end, window, *words = sys.argv[1:]
    grids = [int(word.removeprefix("callers=")) for word in words if word.startswith("callers=")]
    words = [word for word in words if not word.startswith("callers=")]
    if grids:
        print("\n".join(callers(file, int(start), int(end), grids[0], words)))
    else:
        print("\n".join(samples(file, int(start), int(end), int(window), words)))
