"""The dashboard for the wall: is anything outdated now, since when, who; and can a zero be trusted."""

import tables
from colours import (
    BY_SHARE,
    BY_VERSION,
    FOUND,
    IN_TIME_IS_GOOD,
    NONE_IS_GOOD,
    NONE_KNOWN,
    ORANGE,
    OUTDATED_LINES,
    RECORDS_IN_TIME,
    SAYS_BLIND,
    SOME_FOUND,
    YELLOW,
    thresholds,
)
from parts import (
    SOURCE_LEGEND,
    TO_EXPORTER,
    TO_MIGRATION,
    TO_SERVICE,
    callers_link,
    dashboard,
    gauge,
    row,
    stat,
    timeseries,
)
from queries import (
    FAILING_WORKERS,
    NO_TLS_DETAILS_SHARE,
    OUTDATED_OR_BLIND,
    OVERDUE_SOURCE,
    RECORDS_OVERDUE,
    or_zero,
    post_quantum_share,
    tls13_share,
)
from variables import OF_CALLS

OUTDATED = "sum by ({by}) (cloudtrail_tls_outdated_window_calls{{OF_SERVICE}})"

NOW = row(
    "Is anything outdated now?",
    stat(
        "Outdated calls",
        "Calls below tls.minimum_version in the trailing window (24 h). 0 is counted, not assumed: it says blind where the "
        "data is overdue by more than 15 minutes, the newest record by more than 6 hours, or no call in the window is on "
        "TLS 1.2 or newer. Above 0: see the tables below for who it is.",
        "short",
        OUTDATED_OR_BLIND,
        links=TO_SERVICE,
        size=(8, 6),
        steps=NONE_IS_GOOD,
        mappings=SAYS_BLIND,
        background=True,
        empty="no data: blind",
        empty_colour=ORANGE,
    ),
    stat(
        "Accounts affected",
        "Accounts that made an outdated call in the window. Every one of them has a caller to fix.",
        "short",
        or_zero(f"count by (BY) ({OUTDATED.format(by='BY, account_id')} > 0)"),
        links=TO_SERVICE,
        size=(4, 6),
        steps=FOUND,
    ),
    stat(
        "Services affected",
        "AWS services that were called with outdated TLS in the window.",
        "short",
        or_zero(f"count by (BY) ({OUTDATED.format(by='BY, aws_service')} > 0)"),
        links=TO_SERVICE,
        size=(4, 6),
        steps=FOUND,
    ),
    stat(
        "Latest run began",
        "When the newest run of outdated calls began: the first call after 7 days without (regression.quiet_period), in an "
        "account and service. Recent means that something got worse.",
        "dateTimeFromNow",
        "1000 * max by (BY) (cloudtrail_tls_outdated_since_timestamp_seconds{OF_SERVICE})",
        links=TO_SERVICE,
        size=(4, 6),
        empty=NONE_KNOWN,
    ),
    stat(
        "Last outdated call",
        "When the latest outdated call was made, also after it left the window.",
        "dateTimeFromNow",
        "1000 * max by (BY) (cloudtrail_tls_outdated_last_call_timestamp_seconds{OF_SERVICE})",
        links=TO_SERVICE,
        size=(4, 6),
        empty=NONE_KNOWN,
    ),
)

TRUST = row(
    "Can a zero be trusted?",
    stat(
        "Data overdue",
        "How much later the data is than the source's interval and settle allow. Above some minutes the numbers on this page "
        "are of before, and say nothing about now.",
        "s",
        OVERDUE_SOURCE,
        links=TO_EXPORTER,
        steps=IN_TIME_IS_GOOD,
        decimals=0,
    ),
    stat(
        "Data age",
        "How long ago the counted time ends. By the source it may be seconds (files) or a day (Athena).",
        "s",
        "time() - min by (BY) (cloudtrail_tls_exporter_watermark_timestamp_seconds{OF_SOURCE})",
        links=TO_EXPORTER,
        decimals=0,
    ),
    stat(
        "Newest record overdue",
        "How much older the newest record is than the source's interval and settle allow. If it ages while the data is not "
        "overdue, the trail has stopped, or its copy. Red from 6 hours on, as the alert has it.",
        "s",
        RECORDS_OVERDUE,
        links=TO_EXPORTER,
        steps=RECORDS_IN_TIME,
        decimals=0,
    ),
    stat(
        "Workers failing",
        "Workers whose last due attempt failed. Their gauges keep the last value.",
        "short",
        FAILING_WORKERS,
        links=TO_EXPORTER,
        steps=NONE_IS_GOOD,
    ),
    stat(
        "Accounts without control",
        "Accounts without a single call on TLS 1.2 or newer in the window: there a 0 proves nothing. Normal for an account "
        "in which AWS services alone make calls.",
        "short",
        or_zero("count by (BY) (sum by (BY, account_id) (cloudtrail_tls_control_window_calls{OF_ACCOUNT}) == 0)"),
        links=TO_SERVICE,
        steps=SOME_FOUND,
    ),
    stat(
        "Calls without TLS details",
        "The share of calls whose record has no TLS version. Normal for calls that AWS services make for you; if it jumps, "
        "the source has lost the details.",
        "percentunit",
        NO_TLS_DETAILS_SHARE,
        links=TO_SERVICE,
        steps=thresholds((None, "blue"), (0.9, YELLOW)),
        decimals=1,
    ),
)

WHO = row(
    "Who is it?",
    tables.outdated_services(TO_SERVICE),
    tables.callers(TO_SERVICE),
    tables.accounts(TO_SERVICE, size=(24, 8)),
)

TREND = row(
    "Trend",
    timeseries(
        "Outdated calls, by account",
        "Outdated calls in the trailing window. A line that leaves 0 is a caller that came back.",
        "short",
        [(OUTDATED.format(by="BY, account_id"), "{{account_id}} {{cluster}} {{namespace}} {{source}}")],
        links=TO_SERVICE,
        size=(6, 8),
        series_links=callers_link("series", "source", account="account_id"),
        colour=OUTDATED_LINES,
        soft_max=1,
        empty=NONE_KNOWN,
    ),
    timeseries(
        "Outdated calls, by service",
        "Outdated calls in the trailing window. A click on a line leads to the service's calls and callers.",
        "short",
        [(OUTDATED.format(by="BY, aws_service"), "{{aws_service}} {{cluster}} {{namespace}} {{source}}")],
        links=TO_SERVICE,
        size=(6, 8),
        series_links=callers_link("series", "source", service="aws_service"),
        colour=OUTDATED_LINES,
        soft_max=1,
        empty=NONE_KNOWN,
    ),
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
        links=TO_SERVICE,
        size=(12, 8),
        overrides=BY_VERSION,
    ),
    timeseries(
        "Calls per second, by TLS version",
        "From the counters, over an hour or more. A source that is asked once a day shows its calls once a day.",
        "reqps",
        [
            (
                "sum by (BY, tls_version) (rate(cloudtrail_tls_calls_total{OF_SERVICE}[$__rate_interval]))",
                "{{tls_version}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_SERVICE,
        size=(24, 7),
        overrides=BY_VERSION,
        min_step="1h",
    ),
)

PROGRESS = row(
    "The move forward",
    gauge(
        "TLS 1.3",
        "The share of TLS 1.3 in the calls of the window that tell their version. A drop is a client that fell back.",
        tls13_share(),
        links=TO_MIGRATION,
    ),
    gauge(
        "Post-quantum",
        "The share of post-quantum key exchange in the calls of the window that tell it. A drop is a client that fell back.",
        post_quantum_share(),
        links=TO_MIGRATION,
    ),
    timeseries(
        "Shares",
        "TLS 1.3 and post-quantum key exchange in the trailing window, of the calls that tell them.",
        "percentunit",
        [(tls13_share(), f"TLS 1.3 {SOURCE_LEGEND}"), (post_quantum_share(), f"Post-quantum {SOURCE_LEGEND}")],
        links=TO_MIGRATION,
        size=(12, 6),
        overrides=BY_SHARE,
        max=1,
    ),
    stat(
        "Unknown TLS version",
        "Calls in the window on a version that this build does not know. Above 0: update the exporter.",
        "short",
        or_zero('sum by (BY) (cloudtrail_tls_window_calls{OF_SERVICE, tls_version="unknown"})'),
        links=TO_SERVICE,
        size=(4, 6),
        steps=SOME_FOUND,
    ),
)

DASHBOARD = dashboard(
    "Overview",
    "Is anything outdated now, since when, and who is it? Can a zero be trusted?",
    OF_CALLS,
    [NOW, TRUST, WHO, TREND, PROGRESS],
)
