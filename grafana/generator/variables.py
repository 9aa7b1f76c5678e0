"""The variables of the dashboards: each narrows those after it, and all say All at first."""

from queries import OF_ACCOUNT, OF_EXPORTER, OF_NAMESPACE, OF_SOURCE

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _query_variable(name: str, label: str, query: str, all_value: str, description: str) -> dict:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": DATASOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": all_value,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _label_values(label: str, selector: str) -> str:
    return f"label_values({selector}, {label})"


DATASOURCE_VARIABLE = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "description": "The Prometheus that scrapes the exporter.",
    "query": "prometheus",
    "refresh": 1,
}
CLUSTER = _query_variable(
    "cluster",
    "Cluster",
    _label_values("cluster", "cloudtrail_tls_exporter_build_info"),
    ".*",
    "Empty where series have no such label.",
)
NAMESPACE = _query_variable(
    "namespace",
    "Namespace",
    _label_values("namespace", 'cloudtrail_tls_exporter_build_info{cluster=~"$cluster"}'),
    ".*",
    "Empty where series have no such label.",
)
JOB = _query_variable(
    "job",
    "Job",
    _label_values("job", f"cloudtrail_tls_exporter_build_info{{{OF_NAMESPACE}}}"),
    ".+",
    "The job that scrapes the exporter.",
)
INSTANCE = _query_variable(
    "instance",
    "Instance",
    _label_values("instance", f'cloudtrail_tls_exporter_build_info{{{OF_NAMESPACE}, job=~"$job"}}'),
    ".+",
    "The exporter. Leave it at All: a restarted exporter may have another instance.",
)
SOURCE = _query_variable(
    "source",
    "Source",
    _label_values("source", f"cloudtrail_tls_exporter_source_interval_seconds{{{OF_EXPORTER}}}"),
    ".+",
    "Where calls are counted. Two sources over one trail count the same calls: compare them, never add them.",
)
ACCOUNT = _query_variable(
    "account",
    "Account",
    _label_values("account_id", f"cloudtrail_tls_account_outdated_window_calls{{{OF_SOURCE}}}"),
    ".*",
    "All has the calls whose account was folded into other, too.",
)
SERVICE = _query_variable(
    "service",
    "Service",
    _label_values("aws_service", f"cloudtrail_tls_window_calls{{{OF_ACCOUNT}}}"),
    ".*",
    "Services with calls in the window, and those that had outdated ones.",
)
OF_CALLS = [DATASOURCE_VARIABLE, CLUSTER, NAMESPACE, JOB, INSTANCE, SOURCE, ACCOUNT, SERVICE]
OF_EXPORTERS = [DATASOURCE_VARIABLE, CLUSTER, NAMESPACE, JOB, INSTANCE, SOURCE]


def target_variable(name: str, label: str, default: str) -> dict:
    """A share to reach, drawn as a line."""
    choices = ["0.5", "0.8", "0.9", "0.95", "0.99", "1"]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "description": "The share to reach: 1 is all calls. It moves the dashed line; colours stay, green from 0.95.",
        "query": ",".join(choices),
        "options": [{"selected": value == default, "text": value, "value": value} for value in choices],
        "current": {"selected": True, "text": default, "value": default},
    }
