"""The words that expressions are written in, and the expressions that several panels share.

`BY` is what tells one exporter's source from another, as in the alerts: every aggregation keeps it, because two sources
over one trail are a cross-check and never a sum, and an exporter that sees must not hide one that is blind. `OF_…` are
the matchers of the dashboard's variables, each with those before it.
"""

import re

OF_NAMESPACE = 'cluster=~"$cluster", namespace=~"$namespace"'
OF_EXPORTER = OF_NAMESPACE + ', job=~"$job", instance=~"$instance"'
OF_SOURCE = OF_EXPORTER + ', source=~"$source"'
OF_ACCOUNT = OF_SOURCE + ', account_id=~"$account"'
OF_SERVICE = OF_ACCOUNT + ', aws_service=~"$service"'
EXPORTERS = "cluster, namespace, job"
BY = EXPORTERS + ", source"

WORDS = {
    "OF_NAMESPACE": OF_NAMESPACE,
    "OF_EXPORTER": OF_EXPORTER,
    "OF_SOURCE": OF_SOURCE,
    "OF_ACCOUNT": OF_ACCOUNT,
    "OF_SERVICE": OF_SERVICE,
    "EXPORTERS": EXPORTERS,
    "BY": BY,
    "WORKER": BY + ", worker_account, worker_region",
}


def promql(text: str) -> str:
    """The expression with the words above put in, and line breaks and indents as one space."""
    filled = re.sub(r"\b(" + "|".join(WORDS) + r")\b", lambda found: WORDS[found[0]], text)
    return re.sub(r"\s+", " ", filled).strip()


def or_zero(expr: str) -> str:
    """0 where there is nothing to count, but only where the exporter says that accounts were seen."""
    return f"{expr} or 0 * sum by (BY) (cloudtrail_tls_account_outdated_window_calls{{OF_ACCOUNT}})"


# Calls that tell: of the others nothing is known, and they are no sign of a move that is done.
TELLING_VERSION = 'cloudtrail_tls_window_calls{OF_SERVICE, tls_version=~"TLSv.+"}'
TELLING_EXCHANGE = 'cloudtrail_tls_key_exchange_window_calls{OF_SERVICE, post_quantum=~"yes|no"}'


def zero_if_told(expr: str, telling: str) -> str:
    """0 where there is nothing to count, but only where calls in the window tell what is counted."""
    return f"{expr} or 0 * (sum by (BY) ({telling}) > 0)"


def share(family: str, part: str, whole: str, by: str = "BY", offset: str = "") -> str:
    """The share of `part` in `whole`, both matchers: 0 where the part's series have left, nothing where no call is."""
    total = f"sum by ({by}) ({family}{{OF_SERVICE, {whole}}}{offset})"
    return f"(sum by ({by}) ({family}{{OF_SERVICE, {part}}}{offset}) or 0 * {total}) / ({total} > 0)"


def tls13_share(by: str = "BY", offset: str = "") -> str:
    return share("cloudtrail_tls_window_calls", 'tls_version="TLSv1.3"', 'tls_version=~"TLSv.+"', by, offset)


def post_quantum_share(by: str = "BY", offset: str = "") -> str:
    family = "cloudtrail_tls_key_exchange_window_calls"
    return share(family, 'post_quantum="yes"', 'post_quantum=~"yes|no"', by, offset)


# Every call has a version, be it `none`: the whole is all calls.
NO_TLS_DETAILS_SHARE = share("cloudtrail_tls_window_calls", 'tls_version="none"', 'tls_version!=""')

OVERDUE = """
clamp_min(round(
  time() - {reached}
  - on (BY) {group_left} (
    max by (BY) (cloudtrail_tls_exporter_source_interval_seconds{{OF_SOURCE}})
    + max by (BY) (cloudtrail_tls_exporter_source_settle_seconds{{OF_SOURCE}})
  )), 0)
"""
WATERMARK = "min by ({by}) (cloudtrail_tls_exporter_watermark_timestamp_seconds{{OF_SOURCE}})"
OVERDUE_SOURCE = OVERDUE.format(reached=WATERMARK.format(by="BY"), group_left="")
OVERDUE_WORKER = OVERDUE.format(reached=WATERMARK.format(by="WORKER"), group_left="group_left ()")
# As the alert on a silent source has it: over all workers, and a source without any record is as old as its history.
NEWEST_RECORD = """
max by (BY) (
  cloudtrail_tls_exporter_newest_record_timestamp_seconds{OF_SOURCE}
  or cloudtrail_tls_exporter_history_start_timestamp_seconds{OF_SOURCE}
)
"""
RECORDS_OVERDUE = OVERDUE.format(reached=NEWEST_RECORD, group_left="")

FAILING_WORKERS = "sum by (BY) (1 - max by (WORKER) (cloudtrail_tls_exporter_source_up{OF_SOURCE}))"

# The number of the headlines. A zero of a source that sees nothing is none: it says BLIND, and a panel a word for it.
# The alerts tell of each of these apart: DataStale, SourceSilent, ControlLost.
BLIND = -1
_OUTDATED = "sum by (BY) (cloudtrail_tls_outdated_window_calls{OF_SERVICE})"
_SEES_NOTHING = [
    f"{OVERDUE_SOURCE} > 15 * 60",
    f"{RECORDS_OVERDUE} > 6 * 3600",
    "sum by (BY) (cloudtrail_tls_control_window_calls{OF_ACCOUNT}) == 0",
]
OUTDATED_OR_BLIND = " or ".join(
    [f"{_OUTDATED} > 0", *(f"0 * ({sign}) + {BLIND}" for sign in _SEES_NOTHING), or_zero(_OUTDATED)]
)


def of_exporters(expr: str) -> str:
    """Series that every target has, of exporters only: `job` may be `All`, and that is every job of the server."""
    return (
        f"{expr} and on (EXPORTERS, instance)"
        " last_over_time(cloudtrail_tls_exporter_build_info{OF_EXPORTER}[1d])"
    )
