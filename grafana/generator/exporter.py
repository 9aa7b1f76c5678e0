"""The dashboard of the exporter itself: is it up, how old is its data, what fails, and what it costs."""

from colours import (
    FEW_IS_GOOD,
    GREEN,
    IN_TIME_IS_GOOD,
    NONE_IS_GOOD,
    NONE_KNOWN,
    ORANGE,
    RED,
    YELLOW,
    shades_of,
    thresholds,
    words,
)
from parts import SOURCE_LEGEND, TO_OVERVIEW, coloured_number, column, dashboard, row, stat, table, timeseries, unit
from queries import FAILING_WORKERS, OVERDUE_SOURCE, OVERDUE_WORKER, of_exporters
from variables import OF_EXPORTERS

WORKER_LEGEND = "{{cluster}} {{namespace}} {{source}} {{worker_account}} {{worker_region}}"
INSTANCE_LEGEND = "{{cluster}} {{namespace}} {{instance}}"


def hour(family: str, by: str) -> str:
    return f"sum by ({by}) (increase({family}{{OF_SOURCE}}[1h]))"


def day(family: str) -> str:
    return f"sum by (BY) (increase({family}{{OF_SOURCE}}[1d]))"


HEALTH = row(
    "Is it well?",
    stat(
        "Up",
        "Whether Prometheus reaches the exporter. An exporter that is gone for a day is not shown any more.",
        "short",
        of_exporters("up{OF_EXPORTER}"),
        links=TO_OVERVIEW,
        steps=thresholds((None, RED), (1, GREEN)),
        mappings=words(("0", "down", RED), ("1", "up", GREEN)),
        legend=INSTANCE_LEGEND,
        background=True,
        empty_colour=ORANGE,
    ),
    stat(
        "Workers failing",
        "Workers whose last due attempt failed. What was counted before stays, and gets older.",
        "short",
        FAILING_WORKERS,
        links=TO_OVERVIEW,
        steps=NONE_IS_GOOD,
        background=True,
        empty_colour=ORANGE,
    ),
    stat(
        "Version",
        "The build that runs. Several at once: an update that is not finished.",
        "short",
        "cloudtrail_tls_exporter_build_info{OF_EXPORTER}",
        links=TO_OVERVIEW,
        size=(3, 4),
        legend="{{version}} {{cluster}} {{namespace}}",
        name_only=True,
    ),
    stat(
        "Started",
        "When the process started.",
        "dateTimeFromNow",
        of_exporters("1000 * process_start_time_seconds{OF_EXPORTER}"),
        links=TO_OVERVIEW,
        size=(3, 4),
        legend=INSTANCE_LEGEND,
    ),
    stat(
        "Exporters of a source",
        "More than one exporter counts (and pays for) the same source: stop one.",
        "short",
        "count by (BY) (cloudtrail_tls_exporter_source_interval_seconds{OF_SOURCE})",
        links=TO_OVERVIEW,
        steps=thresholds((None, GREEN), (2, RED)),
    ),
    stat(
        "Last reload",
        "Whether the configuration was taken at the last reload. If not, the exporter runs on the one before.",
        "short",
        "cloudtrail_tls_exporter_config_last_reload_successful{OF_EXPORTER}",
        links=TO_OVERVIEW,
        size=(3, 4),
        steps=thresholds((None, RED), (1, GREEN)),
        mappings=words(("0", "refused", RED), ("1", "taken", GREEN)),
        legend=INSTANCE_LEGEND,
    ),
    stat(
        "Clean history",
        "How long the source has been counted without a gap, by its youngest worker. The page on a regression needs 7 days "
        "(regression.quiet_period); below that it is only a warning.",
        "dtdhms",
        "time() - max by (BY) (cloudtrail_tls_exporter_history_start_timestamp_seconds{OF_SOURCE})",
        links=TO_OVERVIEW,
        size=(3, 4),
        steps=thresholds((None, YELLOW), (604800, GREEN)),
        decimals=0,
    ),
    table(
        "Workers",
        "One row for each source, role and Region. Data age: how long ago the counted time ends. Overdue: how much more than "
        "interval and settle allow. Backlog: time that is due and not counted yet.",
        "s",
        [
            ("Up", "min by (WORKER) (cloudtrail_tls_exporter_source_up{OF_SOURCE})"),
            ("Data age", "time() - min by (WORKER) (cloudtrail_tls_exporter_watermark_timestamp_seconds{OF_SOURCE})"),
            ("Overdue", OVERDUE_WORKER),
            ("Backlog", "max by (WORKER) (cloudtrail_tls_exporter_backlog_seconds{OF_SOURCE})"),
            (
                "Last success",
                "1000 * min by (WORKER) (cloudtrail_tls_exporter_last_success_timestamp_seconds{OF_SOURCE})",
            ),
            (
                "Newest record",
                "1000 * max by (WORKER) (cloudtrail_tls_exporter_newest_record_timestamp_seconds{OF_SOURCE})",
            ),
            (
                "History since",
                "1000 * max by (WORKER) (cloudtrail_tls_exporter_history_start_timestamp_seconds{OF_SOURCE})",
            ),
        ],
        ["cluster", "namespace", "source", "worker_account", "worker_region"],
        links=TO_OVERVIEW,
        sort="Overdue",
        size=(24, 8),
        overrides=[
            column(
                "Up",
                unit("short"),
                {"id": "mappings", "value": words(("0", "failing", RED), ("1", "up", GREEN))},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ),
            column("Last success", unit("dateTimeFromNow")),
            column("Newest record", unit("dateTimeFromNow")),
            column("History since", unit("dateTimeFromNow")),
        ],
    ),
)

PROGRESS = row(
    "Progress and failures",
    timeseries(
        "Data overdue",
        "How much later the data is than interval and settle allow. A line that climbs is a worker that stands still.",
        "s",
        [(OVERDUE_WORKER, WORKER_LEGEND)],
        links=TO_OVERVIEW,
        colour=shades_of(ORANGE),
    ),
    timeseries(
        "Backlog",
        "Time that was due and not counted at the last attempt. It climbs when a source is slower than its calls come.",
        "s",
        [("max by (WORKER) (cloudtrail_tls_exporter_backlog_seconds{OF_SOURCE})", WORKER_LEGEND)],
        links=TO_OVERVIEW,
        colour=shades_of(ORANGE),
        soft_max=60,
    ),
    timeseries(
        "Failures in an hour, by reason",
        "Attempts that failed; they stay due. access_denied and credentials need a hand, throttled and timeout mostly pass.",
        "short",
        [
            (
                hour("cloudtrail_tls_exporter_batch_failures_total", "WORKER, reason") + " > 0",
                "{{reason}} " + WORKER_LEGEND,
            )
        ],
        links=TO_OVERVIEW,
        colour=shades_of(RED),
        empty=NONE_KNOWN,
    ),
    timeseries(
        "Batches in an hour",
        "Batches committed. 0 for longer than the source's interval: nothing is counted.",
        "short",
        [(hour("cloudtrail_tls_exporter_batches_total", "WORKER"), WORKER_LEGEND)],
        links=TO_OVERVIEW,
    ),
    timeseries(
        "Time of a batch",
        "From asking to commit, the median and the slowest hundredth. Near the source's timeout (15m), windows are split.",
        "s",
        [
            (
                f"histogram_quantile({quantile}, sum by (BY, le)"
                " (rate(cloudtrail_tls_exporter_batch_duration_seconds_bucket{OF_SOURCE}[$__rate_interval])))",
                f"{name} {SOURCE_LEGEND}",
            )
            for quantile, name in (("0.5", "median"), ("0.99", "p99"))
        ],
        links=TO_OVERVIEW,
        min_step="1h",
    ),
    timeseries(
        "Lost and late in an hour",
        "Skipped: seconds that were given up and are never counted. Late: calls found when a window was counted again.",
        "short",
        [
            (hour("cloudtrail_tls_exporter_skipped_seconds_total", "BY"), f"skipped seconds {SOURCE_LEGEND}"),
            (hour("cloudtrail_tls_exporter_late_calls_total", "BY"), f"late calls {SOURCE_LEGEND}"),
        ],
        links=TO_OVERVIEW,
        soft_max=1,
    ),
    timeseries(
        "Files and duplicates",
        "Unreadable files are tried again, and the log names them. Duplicates: records passed over in the hour before because "
        "their event id had been counted. Evicted: event ids that left the horizon; a duplicate of them would count.",
        "short",
        [
            ("max by (BY) (cloudtrail_tls_exporter_unreadable_files{OF_SOURCE})", f"unreadable files {SOURCE_LEGEND}"),
            (hour("cloudtrail_tls_exporter_deduplicated_calls_total", "BY"), f"duplicates {SOURCE_LEGEND}"),
            (hour("cloudtrail_tls_exporter_dedup_evicted_total", "BY"), f"evicted {SOURCE_LEGEND}"),
        ],
        links=TO_OVERVIEW,
        soft_max=1,
    ),
    stat(
        "Clock ahead of AWS",
        "How far the host's clock is ahead of AWS's. Over a minute the log warns; what is due goes by the earlier clock.",
        "s",
        "max by (BY) (cloudtrail_tls_exporter_clock_skew_seconds{OF_SOURCE})",
        links=TO_OVERVIEW,
        size=(4, 8),
        steps=thresholds((None, YELLOW), (-60, GREEN), (60, YELLOW), (300, RED)),
        empty="not known",
    ),
    stat(
        "Data overdue now",
        "How much later the data is than interval and settle allow, of the worker that is furthest behind.",
        "s",
        OVERDUE_SOURCE,
        links=TO_OVERVIEW,
        size=(8, 8),
        steps=IN_TIME_IS_GOOD,
        decimals=0,
    ),
)

COST = row(
    "What it costs",
    stat(
        "Cost of 24 h",
        "What AWS bills for the bytes scanned in the last day, at the source's price_per_gib. 0 if no price is set.",
        "currencyUSD",
        day("cloudtrail_tls_exporter_estimated_cost_dollars_total"),
        links=TO_OVERVIEW,
        decimals=2,
    ),
    stat(
        "Cost of 30 days at this rate",
        "The last day, 30 times. After a first start or an outage the day has catching up in it.",
        "currencyUSD",
        "30 * " + day("cloudtrail_tls_exporter_estimated_cost_dollars_total"),
        links=TO_OVERVIEW,
        decimals=2,
    ),
    stat(
        "Bytes scanned in 24 h",
        "Bytes scanned, of queries as AWS tells, of files as they lie on the disk. What AWS bills goes by these.",
        "bytes",
        day("cloudtrail_tls_exporter_scanned_bytes_total"),
        links=TO_OVERVIEW,
    ),
    stat(
        "Scans of a record",
        "Records scanned for each call counted, in the last day. 1 is each byte paid for once; 2 with a recount. Far more: see "
        "What it costs in the README. Athena does not tell its records.",
        "short",
        f"{day('cloudtrail_tls_exporter_scanned_records_total')} / ({day('cloudtrail_tls_calls_total')} > 0)",
        links=TO_OVERVIEW,
        decimals=2,
    ),
    stat(
        "Budget used today",
        "The part of budget_bytes_per_day that is used, by UTC day. At 100 % the source waits and its backlog grows.",
        "percentunit",
        "max by (BY) (cloudtrail_tls_exporter_budget_used_bytes{OF_SOURCE} / cloudtrail_tls_exporter_budget_bytes{OF_SOURCE})",
        links=TO_OVERVIEW,
        steps=thresholds((None, GREEN), (0.8, YELLOW), (1, RED)),
        empty=NONE_KNOWN,
    ),
    stat(
        "Budget exhausted",
        "Whether the source waits for the next UTC day because its budget does not cover the next window.",
        "short",
        "max by (BY) (cloudtrail_tls_exporter_budget_exhausted{OF_SOURCE})",
        links=TO_OVERVIEW,
        steps=NONE_IS_GOOD,
        mappings=words(("0", "no", GREEN), ("1", "yes", RED)),
        empty=NONE_KNOWN,
    ),
    timeseries(
        "Cost of the day before",
        "What the bytes of the 24 h before each point cost. A step up without more calls is a query that reads too much.",
        "currencyUSD",
        [(day("cloudtrail_tls_exporter_estimated_cost_dollars_total"), SOURCE_LEGEND)],
        links=TO_OVERVIEW,
        size=(12, 6),
        soft_max=0.01,
        min_step="15m",
    ),
    timeseries(
        "Budget and its use",
        "Bytes billed for queries of the UTC day, and budget_bytes_per_day where there is one. At the budget the source waits.",
        "bytes",
        [
            ("max by (BY) (cloudtrail_tls_exporter_budget_used_bytes{OF_SOURCE})", f"used {SOURCE_LEGEND}"),
            ("max by (BY) (cloudtrail_tls_exporter_budget_bytes{OF_SOURCE})", f"budget {SOURCE_LEGEND}"),
        ],
        links=TO_OVERVIEW,
        size=(12, 6),
        empty=NONE_KNOWN,
    ),
    timeseries(
        "AWS requests, by operation",
        "Requests to AWS, retries included. They share quotas with everybody else in the account.",
        "reqps",
        [
            (
                "sum by (BY, operation) (rate(cloudtrail_tls_exporter_aws_api_requests_total{OF_SOURCE}[$__rate_interval]))",
                "{{operation}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_OVERVIEW,
        size=(12, 6),
        empty=NONE_KNOWN,
        min_step="5m",
    ),
    timeseries(
        "AWS errors in an hour",
        "Requests that failed after all retries, by operation and reason. access_denied: see the README's table of actions.",
        "short",
        [
            (
                hour("cloudtrail_tls_exporter_aws_api_errors_total", "BY, operation, reason") + " > 0",
                "{{operation}} {{reason}} {{cluster}} {{namespace}} {{source}}",
            )
        ],
        links=TO_OVERVIEW,
        size=(12, 6),
        colour=shades_of(RED),
        empty=NONE_KNOWN,
    ),
)

PROCESS = row(
    "Series, store, process",
    table(
        "Series, by family",
        "Series in the scrape, the most there may be (series.limit), and label sets that were folded into other: a folded "
        "account or call cannot be seen alone. Raise the limit or drop a label.",
        "short",
        [
            ("Series", "max by (EXPORTERS, family) (cloudtrail_tls_exporter_series{OF_EXPORTER})"),
            ("Limit", "max by (EXPORTERS, family) (cloudtrail_tls_exporter_series_limit{OF_EXPORTER})"),
            ("Folded", "max by (EXPORTERS, family) (cloudtrail_tls_exporter_series_folded{OF_EXPORTER})"),
        ],
        ["cluster", "namespace", "family"],
        links=TO_OVERVIEW,
        sort="Series",
        size=(12, 10),
        overrides=[column("Folded", *coloured_number(FEW_IS_GOOD))],
    ),
    timeseries(
        "Scrape",
        "How long Prometheus takes to scrape the exporter. Near its scrape_timeout (10 s) data is lost.",
        "s",
        [(of_exporters("scrape_duration_seconds{OF_EXPORTER}"), INSTANCE_LEGEND)],
        links=TO_OVERVIEW,
        size=(12, 10),
    ),
    stat(
        "Samples of a scrape",
        "Samples that Prometheus reads at each scrape: what the exporter costs there.",
        "short",
        of_exporters("scrape_samples_scraped{OF_EXPORTER}"),
        links=TO_OVERVIEW,
        legend=INSTANCE_LEGEND,
    ),
    stat(
        "Store in memory",
        "With state.ephemeral the counts, the progress and the memory of regressions end with the process.",
        "short",
        "cloudtrail_tls_exporter_state_ephemeral{OF_EXPORTER}",
        links=TO_OVERVIEW,
        steps=FEW_IS_GOOD,
        mappings=words(("0", "no", GREEN), ("1", "yes", YELLOW)),
        legend=INSTANCE_LEGEND,
    ),
    stat(
        "Store written",
        "When the store was last written. Long ago, with sources up: the disk is full or read-only.",
        "dateTimeFromNow",
        "1000 * cloudtrail_tls_exporter_state_last_write_timestamp_seconds{OF_EXPORTER}",
        links=TO_OVERVIEW,
        legend=INSTANCE_LEGEND,
    ),
    stat(
        "Store",
        "The size of the store. It is bounded by state.retention.",
        "bytes",
        "cloudtrail_tls_exporter_state_bytes{OF_EXPORTER}",
        links=TO_OVERVIEW,
        legend=INSTANCE_LEGEND,
    ),
    stat(
        "File descriptors",
        "The part of the process's file descriptors that is in use. Near 100 % requests fail.",
        "percentunit",
        of_exporters("process_open_fds{OF_EXPORTER} / process_max_fds{OF_EXPORTER}"),
        links=TO_OVERVIEW,
        decimals=1,
        steps=thresholds((None, GREEN), (0.8, RED)),
        legend=INSTANCE_LEGEND,
    ),
    stat(
        "HTTP requests",
        "Requests answered: scrapes, probes, people.",
        "reqps",
        "sum by (EXPORTERS, instance)"
        " (rate(cloudtrail_tls_exporter_http_requests_total{OF_EXPORTER}[$__rate_interval]))",
        links=TO_OVERVIEW,
        legend=INSTANCE_LEGEND,
    ),
    timeseries(
        "Memory",
        "Resident memory of the process. It goes with the number of series.",
        "bytes",
        [(of_exporters("process_resident_memory_bytes{OF_EXPORTER}"), INSTANCE_LEGEND)],
        links=TO_OVERVIEW,
    ),
    timeseries(
        "CPU",
        "CPU seconds in a second. Files and rows are counted with it; a scrape costs next to nothing.",
        "percentunit",
        [(of_exporters("rate(process_cpu_seconds_total{OF_EXPORTER}[$__rate_interval])"), INSTANCE_LEGEND)],
        links=TO_OVERVIEW,
        soft_max=0.01,
    ),
)

DASHBOARD = dashboard(
    "Exporter",
    "The exporter itself: is it up, how old is its data, what fails, and what it costs.",
    OF_EXPORTERS,
    [HEALTH, PROGRESS, COST, PROCESS],
)
