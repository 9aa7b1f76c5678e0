"""The dashboard of the move: how far TLS 1.3 and post-quantum key exchange are, and what has still to move."""

from colours import BY_WHAT_IS_LEFT, GOAL, IN_TIME_IS_GOOD, SHARE_COLOURS, SOME_FOUND, shades_of, target_line, thresholds
from parts import (
    GAUGE_CELL,
    LABEL_COLUMNS,
    SIGNED,
    SOURCE_LEGEND,
    TO_EXPORTER,
    TO_OVERVIEW,
    TO_SERVICE,
    callers_link,
    coloured_number,
    column,
    dashboard,
    gauge,
    row,
    row_links,
    stat,
    table,
    timeseries,
    unit,
    width,
)
from queries import (
    OVERDUE_SOURCE,
    TELLING_EXCHANGE,
    TELLING_VERSION,
    or_zero,
    post_quantum_share,
    share,
    tls13_share,
    zero_if_told,
)
from variables import OF_CALLS, target_variable

WEEK = " offset 7d"
PAIR = "BY, account_id, aws_service"


def change(of_share, by: str = "BY") -> str:
    return f"{of_share(by)} - {of_share(by, WEEK)}"


def change_stat(title: str, of_share) -> dict:
    return stat(
        title,
        "The share now less that of 7 days ago, in percentage points. Below 0 means that clients fell back, or that others call more.",
        "percentunit",
        change(of_share),
        links=TO_SERVICE,
        size=(5, 8),
        steps=SIGNED,
        empty="no data of then",
        decimals=1,
    )


def share_lines(title: str, description: str, of_share, target: str, colour: str, columns: int) -> dict:
    return timeseries(
        title,
        description,
        "percentunit",
        [(of_share(), SOURCE_LEGEND), (f"vector(${target})", "Target")],
        links=TO_SERVICE,
        size=(columns, 8),
        colour=shades_of(colour),
        overrides=[target_line("Target")],
        max=1,
        min_step="1h",
    )


def progress_table(title: str, description: str, label: str, whole: str, of_share) -> dict:
    by = f"BY, {label}"
    kept = {"aws_service": {"service": "Service"}, "account_id": {"account": "Account"}}[label]
    return table(
        title,
        description,
        "short",
        [
            ("Calls", f"sum by ({by}) ({whole}) > 0"),
            ("Share", of_share(by)),
            ("Change, 7 d", change(of_share, by)),
        ],
        ["cluster", "namespace", "source", label],
        links=TO_SERVICE,
        sort="Share",
        descending=False,
        size=(12, 8),
        overrides=[
            column("Share", *GAUGE_CELL),
            column("Change, 7 d", width(125), unit("percentunit"), *coloured_number(SIGNED)),
            column(LABEL_COLUMNS[label], row_links(callers_link("row", "Source", **kept))),
        ],
    )


def pairs(inner: str) -> str:
    return f"count by (BY) (sum by ({PAIR}) ({inner}) > 0)"


def services(condition: str) -> str:
    """How many services have such a share of TLS 1.3."""
    return zero_if_told(f"count by (BY) ({tls13_share('BY, aws_service')} {condition})", TELLING_VERSION)


BURN_DOWN = row(
    "What is left",
    timeseries(
        "Pairs of account and service that have not arrived",
        "How many pairs of account and service still made a call in the window that was outdated, below TLS 1.3, or without "
        "post-quantum key exchange. Done is 0. No line: no call tells.",
        "short",
        [
            (or_zero(pairs("cloudtrail_tls_outdated_window_calls{OF_SERVICE}")), f"Outdated {SOURCE_LEGEND}"),
            (
                zero_if_told(
                    pairs('cloudtrail_tls_window_calls{OF_SERVICE, tls_version!~"TLSv1[.]3|none|unknown"}'),
                    TELLING_VERSION,
                ),
                f"Below TLS 1.3 {SOURCE_LEGEND}",
            ),
            (
                zero_if_told(
                    pairs('cloudtrail_tls_key_exchange_window_calls{OF_SERVICE, post_quantum="no"}'), TELLING_EXCHANGE
                ),
                f"Not post-quantum {SOURCE_LEGEND}",
            ),
        ],
        links=TO_OVERVIEW,
        size=(24, 8),
        overrides=BY_WHAT_IS_LEFT,
        min_step="1h",
    ),
    stat(
        "Services on TLS 1.3 alone",
        "Services of which every call in the window that tells its version is on TLS 1.3.",
        "short",
        services("== 1"),
        links=TO_SERVICE,
        size=(6, 4),
    ),
    stat(
        "Services partly on TLS 1.3",
        "Services with calls on TLS 1.3 and on older versions in the window: some clients have still to move.",
        "short",
        services("> 0 < 1"),
        links=TO_SERVICE,
        size=(6, 4),
        steps=SOME_FOUND,
    ),
    stat(
        "Services without TLS 1.3",
        "Services of which no call in the window is on TLS 1.3: begin here.",
        "short",
        services("== 0"),
        links=TO_SERVICE,
        size=(6, 4),
        steps=SOME_FOUND,
    ),
    stat(
        "Key exchange not told",
        "The share of calls with TLS details that do not tell their key exchange: they are in no post-quantum share. Some "
        "sources cannot tell (Athena with AWS's table as it is, maybe Lake).",
        "percentunit",
        share("cloudtrail_tls_key_exchange_window_calls", 'key_exchange="unreported"', 'key_exchange!="none"'),
        links=TO_SERVICE,
        size=(6, 4),
        steps=thresholds((None, "blue"), (0.5, "yellow")),
        decimals=1,
    ),
)

TLS13 = row(
    "TLS 1.3",
    share_lines(
        "Share of TLS 1.3",
        "Of the calls in the trailing window that tell their version. Above the dashed line is done; a drop is a client that "
        "fell back.",
        tls13_share,
        "tls13_target",
        SHARE_COLOURS["TLS 1.3"],
        11,
    ),
    gauge(
        "TLS 1.3 now",
        "The share of TLS 1.3 in the calls of the window that tell their version.",
        tls13_share(),
        links=TO_SERVICE,
        size=(4, 8),
    ),
    change_stat("TLS 1.3, change in 7 days", tls13_share),
    stat(
        "Data overdue",
        "How much later the data is than the source's interval and settle allow. Above some minutes the shares on this page "
        "are of before.",
        "s",
        OVERDUE_SOURCE,
        links=TO_EXPORTER,
        size=(4, 8),
        steps=IN_TIME_IS_GOOD,
        decimals=0,
    ),
    progress_table(
        "Services by share of TLS 1.3",
        "Calls that tell their version, and how many of them are on TLS 1.3; the lowest first. Change: of the share, in percentage points.",
        "aws_service",
        TELLING_VERSION,
        tls13_share,
    ),
    progress_table(
        "Accounts by share of TLS 1.3",
        "Calls that tell their version, and how many of them are on TLS 1.3; the lowest first. Change: of the share, in percentage points.",
        "account_id",
        TELLING_VERSION,
        tls13_share,
    ),
)

POST_QUANTUM = row(
    "Post-quantum key exchange",
    share_lines(
        "Share of post-quantum key exchange",
        "Of the calls in the trailing window that tell their key exchange. Above the dashed line is done; a drop is a client "
        "that fell back.",
        post_quantum_share,
        "post_quantum_target",
        SHARE_COLOURS["Post-quantum"],
        15,
    ),
    gauge(
        "Post-quantum now",
        "The share of post-quantum key exchange in the calls of the window that tell it.",
        post_quantum_share(),
        links=TO_SERVICE,
        size=(4, 8),
    ),
    change_stat("Post-quantum, change in 7 days", post_quantum_share),
    progress_table(
        "Services by share of post-quantum key exchange",
        "Calls that tell their key exchange, and how many of them are post-quantum; the lowest first. These are the clients "
        "whose SDK to update.",
        "aws_service",
        TELLING_EXCHANGE,
        post_quantum_share,
    ),
    progress_table(
        "Accounts by share of post-quantum key exchange",
        "Calls that tell their key exchange, and how many of them are post-quantum; the lowest first.",
        "account_id",
        TELLING_EXCHANGE,
        post_quantum_share,
    ),
)

DASHBOARD = dashboard(
    "Migration",
    "How far the move to TLS 1.3 and to post-quantum key exchange is, and what has still to move.",
    [
        *OF_CALLS,
        target_variable("tls13_target", "TLS 1.3 target", str(GOAL)),
        target_variable("post_quantum_target", "Post-quantum target", str(GOAL)),
    ],
    [TLS13, POST_QUANTUM, BURN_DOWN],
    since="now-30d",
)
