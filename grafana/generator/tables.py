"""Tables that stand on more than one dashboard: what is outdated, who makes the calls, and which accounts are seen."""

from colours import FOUND, NONE_KNOWN, YELLOW, thresholds
from parts import (
    LABEL_COLUMNS,
    VERSION_COLUMN,
    WRAPPED,
    callers_link,
    coloured_number,
    column,
    row_links,
    table,
    unit,
    width,
)

_TO_CALLERS = row_links(callers_link("row", "Source", "Account", "Service"))
_OVER = {"id": "noValue", "value": "over"}



def _runs(labels: list[str], values: list[tuple[str, str]], title: str, description: str, links) -> dict:
    dates = [column(name, unit("dateTimeFromNow")) for name, _ in values if name != "Calls"]
    versions = [VERSION_COLUMN] if "tls_version" in labels else []
    return table(
        title,
        description,
        "short",
        values,
        labels,
        links=links,
        sort="Last call",
        size=(24, 6),
        empty=NONE_KNOWN,
        overrides=[column(LABEL_COLUMNS["aws_service"], _TO_CALLERS), *versions, *dates, column("Since", _OVER)],
    )


def outdated_services(links) -> dict:
    by = "BY, account_id, aws_service"
    return _runs(
        ["cluster", "namespace", "source", "account_id", "aws_service"],
        [
            ("Calls", f"sum by ({by}) (cloudtrail_tls_outdated_window_calls{{OF_SERVICE}})"),
            ("Last call", f"1000 * max by ({by}) (cloudtrail_tls_outdated_last_call_timestamp_seconds{{OF_SERVICE}})"),
            ("Since", f"1000 * min by ({by}) (cloudtrail_tls_outdated_since_timestamp_seconds{{OF_SERVICE}})"),
            ("Detected", f"1000 * max by ({by}) (cloudtrail_tls_outdated_detected_timestamp_seconds{{OF_SERVICE}})"),
        ],
        "Outdated, by account and service",
        "Every account and service that had outdated calls; a click on the service leads to its calls and callers. Calls: in "
        "the window, 0 when they have ended. Since: when the present run began, after 7 days without (regression.quiet_period), "
        "or over. Detected: when the exporter saw it.",
        links,
    )


def outdated_calls(links) -> dict:
    by = "BY, account_id, aws_service, event_name"
    return _runs(
        ["cluster", "namespace", "source", "account_id", "aws_service", "event_name", "tls_version"],
        [
            (
                "Last call",
                f"1000 * max by ({by}, tls_version) (cloudtrail_tls_outdated_last_call_timestamp_seconds{{OF_SERVICE}})",
            ),
            (
                "Since",
                f"0 * max by ({by}, tls_version) (cloudtrail_tls_outdated_last_call_timestamp_seconds{{OF_SERVICE}})"
                f" + on ({by}) group_left ()"
                f" 1000 * min by ({by}) (cloudtrail_tls_outdated_call_since_timestamp_seconds{{OF_SERVICE}})",
            ),
        ],
        "Outdated calls, by name",
        "Which call, on which version, when the latest was made, and since when the present run of this call lasts, or "
        "over. Which versions are outdated is the exporter's tls.minimum_version.",
        links,
    )


def callers(links) -> dict:
    labels = [
        "cluster",
        "namespace",
        "source",
        "account_id",
        "aws_service",
        "event_name",
        "tls_version",
        "principal",
        "user_agent",
        "source_ip",
    ]
    by = "BY, " + ", ".join(labels[3:])
    return table(
        "Who: the busiest outdated callers",
        "The principals and programs behind outdated calls in the window: the busiest 5 of each account and service, "
        "callers.limit in all, the rest as other; none where the record does not tell. Which columns there are is the "
        "exporter's callers.labels. These are the ones to fix.",
        "short",
        [("Calls", f"sum by ({by}) (cloudtrail_tls_outdated_caller_window_calls{{OF_SERVICE}}) > 0")],
        labels,
        links=links,
        sort="Calls",
        size=(24, 7),
        empty=NONE_KNOWN,
        overrides=[
            column(LABEL_COLUMNS["aws_service"], _TO_CALLERS),
            VERSION_COLUMN,
            column(LABEL_COLUMNS["aws_service"], width(150)),
            column(LABEL_COLUMNS["event_name"], width(180)),
            *(column(LABEL_COLUMNS[label], WRAPPED) for label in ("principal", "user_agent")),
        ],
    )


def accounts(links, size: tuple[int, int]) -> dict:
    return table(
        "Accounts",
        "Every account seen. Outdated: outdated calls in the window. Control: calls on TLS 1.2 or newer in the window, of all "
        "services; where it is 0, a 0 of outdated proves nothing. Newest record: an account that was busy and is silent has "
        "lost its trail.",
        "short",
        [
            ("Outdated", "sum by (BY, account_id) (cloudtrail_tls_account_outdated_window_calls{OF_ACCOUNT})"),
            ("Control", "sum by (BY, account_id) (cloudtrail_tls_control_window_calls{OF_ACCOUNT})"),
            (
                "Newest record",
                "1000 * max by (BY, account_id) (cloudtrail_tls_account_newest_record_timestamp_seconds{OF_ACCOUNT})",
            ),
        ],
        ["cluster", "namespace", "source", "account_id"],
        links=links,
        sort="Outdated",
        size=size,
        overrides=[
            column(LABEL_COLUMNS["account_id"], row_links(callers_link("row", "Source", account="Account"))),
            column("Outdated", *coloured_number(FOUND)),
            column("Control", *coloured_number(thresholds((None, YELLOW), (1, "text")))),
            column("Newest record", unit("dateTimeFromNow")),
        ],
    )
