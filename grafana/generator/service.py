"""The dashboard behind a service (or account): its calls, versions, key exchanges, and callers."""

import tables
from colours import (
    BY_KEY_EXCHANGE,
    BY_POST_QUANTUM,
    BY_VERSION,
    NONE_IS_GOOD,
    NONE_KNOWN,
    ORANGE,
    OUTDATED_LINES,
    POST_QUANTUM_COLOURS,
    SAYS_BLIND,
    TOWARDS_ALL,
    coloured_words,
)
from parts import (
    TO_EXPORTER,
    TO_MIGRATION,
    TO_OVERVIEW,
    VERSION_COLUMN,
    callers_link,
    column,
    dashboard,
    row,
    stat,
    table,
    timeseries,
)
from queries import NO_TLS_DETAILS_SHARE, OUTDATED_OR_BLIND, post_quantum_share, tls13_share
from variables import OF_CALLS

NOW = row(
    "Now: $service",
    stat(
        "Outdated calls",
        "Calls below tls.minimum_version in the trailing window (24 h). Above 0: the callers are below. Blind: the data is "
        "overdue by more than 15 minutes, the newest record by more than 6 hours, or no call in the window is on TLS 1.2 or "
        "newer.",
        "short",
        OUTDATED_OR_BLIND,
        links=TO_OVERVIEW,
        steps=NONE_IS_GOOD,
        mappings=SAYS_BLIND,
        background=True,
        empty_colour=ORANGE,
    ),
    stat(
        "Outdated since",
        "When the oldest of the present runs of outdated calls began.",
        "dateTimeFromNow",
        "1000 * min by (BY) (cloudtrail_tls_outdated_since_timestamp_seconds{OF_SERVICE})",
        links=TO_OVERVIEW,
        empty=NONE_KNOWN,
    ),
    stat(
        "Calls",
        "All calls in the trailing window.",
        "short",
        "sum by (BY) (cloudtrail_tls_window_calls{OF_SERVICE})",
        links=TO_OVERVIEW,
    ),
    stat(
        "TLS 1.3",
        "The share of TLS 1.3 in the calls of the window that tell their version.",
        "percentunit",
        tls13_share(),
        links=TO_MIGRATION,
        steps=TOWARDS_ALL,
        decimals=1,
    ),
    stat(
        "Post-quantum",
        "The share of post-quantum key exchange in the calls of the window that tell it.",
        "percentunit",
        post_quantum_share(),
        links=TO_MIGRATION,
        steps=TOWARDS_ALL,
        decimals=1,
    ),
    stat(
        "Calls without TLS details",
        "The share of calls whose record has no TLS version: nothing can be told of them. Normal for calls that AWS services "
        "make for you.",
        "percentunit",
        NO_TLS_DETAILS_SHARE,
        links=TO_EXPORTER,
        decimals=1,
    ),
)

OUTDATED = row("Outdated: which calls, which callers", tables.outdated_calls(TO_OVERVIEW), tables.callers(TO_OVERVIEW))

VERSIONS = row(
    "Versions, calls, accounts",
    timeseries(
        "Calls, by TLS version",
        "Calls in the trailing window. none: the record tells no version; unknown: a version that this build does not know.",
        "short",
        [
            (
                "sum by (BY, tls_version) (cloudtrail_tls_window_calls{OF_SERVICE})",
                "{{tls_version}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_MIGRATION,
        overrides=BY_VERSION,
    ),
    timeseries(
        "Outdated calls, by account and service",
        "Outdated calls in the trailing window. A line that leaves 0 is a caller that came back.",
        "short",
        [
            (
                "sum by (BY, account_id, aws_service) (cloudtrail_tls_outdated_window_calls{OF_SERVICE})",
                "{{account_id}} {{aws_service}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_OVERVIEW,
        series_links=callers_link("series", "source", account="account_id", service="aws_service"),
        colour=OUTDATED_LINES,
        soft_max=1,
        empty=NONE_KNOWN,
    ),
    table(
        "Calls, by name and version",
        "All calls in the trailing window. other stands for what was folded to hold series.limit. Region is there if "
        "series.labels has aws_region.",
        "short",
        [
            (
                "Calls",
                "sum by (BY, account_id, aws_service, event_name, tls_version, aws_region)"
                " (cloudtrail_tls_window_calls{OF_SERVICE}) > 0",
            )
        ],
        ["cluster", "namespace", "source", "account_id", "aws_service", "event_name", "tls_version", "aws_region"],
        links=TO_OVERVIEW,
        sort="Calls",
        size=(24, 10),
        overrides=[VERSION_COLUMN],
    ),
)

KEYS = row(
    "Key exchanges and cipher suites",
    timeseries(
        "Calls, by key exchange",
        "Calls in the trailing window. none: no TLS details; unreported: details that do not tell the key exchange.",
        "short",
        [
            (
                "sum by (BY, key_exchange) (cloudtrail_tls_key_exchange_window_calls{OF_SERVICE})",
                "{{key_exchange}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_MIGRATION,
        overrides=BY_KEY_EXCHANGE,
    ),
    timeseries(
        "Calls, by post-quantum",
        "Calls in the trailing window, by whether their key exchange is post-quantum.",
        "short",
        [
            (
                "sum by (BY, post_quantum) (cloudtrail_tls_key_exchange_window_calls{OF_SERVICE})",
                "{{post_quantum}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_MIGRATION,
        overrides=BY_POST_QUANTUM,
    ),
    table(
        "Key exchanges, by account",
        "Calls in the trailing window by key exchange: no is what has still to move.",
        "short",
        [
            (
                "Calls",
                "sum by (BY, account_id, aws_service, key_exchange, post_quantum)"
                " (cloudtrail_tls_key_exchange_window_calls{OF_SERVICE}) > 0",
            )
        ],
        ["cluster", "namespace", "source", "account_id", "aws_service", "key_exchange", "post_quantum"],
        links=TO_MIGRATION,
        sort="Calls",
        size=(24, 8),
        overrides=[column("Post-quantum", *coloured_words(POST_QUANTUM_COLOURS))],
    ),
    table(
        "Cipher suites",
        "Calls in the trailing window by cipher suite, of all accounts: this family has no account. Look for suites with CBC "
        "(…-SHA), without forward secrecy (no ECDHE), or outdated versions.",
        "short",
        [
            (
                "Calls",
                "sum by (BY, aws_service, tls_version, cipher_suite)"
                ' (cloudtrail_tls_cipher_suite_window_calls{OF_SOURCE, aws_service=~"$service"}) > 0',
            )
        ],
        ["cluster", "namespace", "source", "aws_service", "tls_version", "cipher_suite"],
        links=TO_OVERVIEW,
        sort="Calls",
        size=(24, 8),
        overrides=[VERSION_COLUMN],
    ),
)

SIGHT = row(
    "What is seen of it",
    timeseries(
        "Calls on TLS 1.2 or newer, by account",
        "The positive control: as long as it is above 0, a 0 of outdated calls means something. Of all services.",
        "short",
        [
            (
                "sum by (BY, account_id) (cloudtrail_tls_control_window_calls{OF_ACCOUNT})",
                "{{account_id}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_EXPORTER,
        size=(10, 8),
    ),
    tables.accounts(TO_EXPORTER, size=(14, 8)),
)

DASHBOARD = dashboard(
    "Service",
    "One service, account or source: its calls by TLS version, its key exchanges, and the callers of outdated calls.",
    OF_CALLS,
    [NOW, OUTDATED, VERSIONS, KEYS, SIGHT],
)
