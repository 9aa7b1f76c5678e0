"""Which metrics there are, of which kind, with which labels: the golden scrape, and what it cannot have."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from boards import ROOT

GOLDEN = ROOT / "tests/golden/metrics.prom"
PREFIX = "cloudtrail_tls_"

# Families of sources that ask AWS: the golden scrape is of files. The README's table names them.
OF_AWS = {
    "cloudtrail_tls_exporter_aws_api_requests_total": ("counter", {"source", "operation"}),
    "cloudtrail_tls_exporter_aws_api_errors_total": ("counter", {"source", "operation", "reason"}),
    "cloudtrail_tls_exporter_clock_skew_seconds": ("gauge", {"source"}),
    "cloudtrail_tls_exporter_budget_bytes": ("gauge", {"source"}),
    "cloudtrail_tls_exporter_budget_used_bytes": ("gauge", {"source"}),
    "cloudtrail_tls_exporter_budget_exhausted": ("gauge", {"source"}),
}

# What Prometheus itself adds.
OF_PROMETHEUS = {
    "up": ("gauge", set()),
    "scrape_duration_seconds": ("gauge", set()),
    "scrape_samples_scraped": ("gauge", set()),
    "ALERTS": ("gauge", {"alertname", "alertstate"}),
}
OF_TARGET = {"cluster", "namespace", "job", "instance"}

# Labels that a configuration may add: `series.labels`, `callers.labels`.
CONFIGURED = {
    "cloudtrail_tls_window_calls": {"aws_region"},
    "cloudtrail_tls_calls_total": {"aws_region"},
    "cloudtrail_tls_outdated_caller_window_calls": {"source_ip"},
}


def golden() -> dict[str, tuple[str, set[str]]]:
    """Sample name to kind and labels."""
    found: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(GOLDEN.read_text(encoding="utf-8")):
        for sample in family.samples:
            kind = "counter" if sample.name.endswith(("_total", "_bucket", "_count", "_sum")) else family.type
            found.setdefault(sample.name, (kind, set()))[1].update(sample.labels)
    return found


def families() -> dict[str, tuple[str, set[str]]]:
    return golden() | OF_AWS | OF_PROMETHEUS


def labels_of(name: str, known: dict[str, tuple[str, set[str]]]) -> set[str]:
    return known[name][1] | CONFIGURED.get(name, set()) | OF_TARGET
