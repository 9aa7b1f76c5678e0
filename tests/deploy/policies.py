"""The IAM documents as shipped, with their placeholders filled in, and what they allow."""

import fnmatch
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
IAM = ROOT / "deploy" / "iam"
POLICIES = sorted((IAM / "policies").rglob("*.json"))
TRUSTS = sorted((IAM / "trust").glob("*.json"))
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")

ACCOUNT, REGION = "111122223333", "eu-west-1"
STORE = "01234567-89ab-cdef-0123-456789abcdef"
OIDC = "oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
# A value for every placeholder of every document.
VALUES = {
    "partition": "aws",
    "region": REGION,
    "account": ACCOUNT,
    "log_group_arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:trail",
    "event_data_store_arn": f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:eventdatastore/{STORE}",
    "workgroup": "primary",
    "catalog": "AwsDataCatalog",
    "database": "logs",
    "table": "cloudtrail_logs",
    "trail_bucket": "trail",
    "trail_prefix": "",
    "results_bucket": "results",
    "results_prefix": "athena/",
    "kms_key_arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{STORE}",
    "role_arn": "arn:aws:iam::444455556666:role/cloudtrail-tls-exporter",
    "oidc_provider": OIDC,
    "oidc_provider_arn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{OIDC}",
    "cluster_arn": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/production",
    "namespace": "monitoring",
    "service_account": "cloudtrail-tls-exporter",
    "exporter_role_arn": f"arn:aws:iam::{ACCOUNT}:role/cloudtrail-tls-exporter",
    "external_id": "some-id",
}


def name(file: pathlib.Path) -> str:
    """Such as `kms/lake`."""
    return file.relative_to(IAM / "policies").with_suffix("").as_posix()


def policy(name: str, **values: str) -> dict:
    return filled_in(IAM / "policies" / f"{name}.json", **values)


def trust(name: str, **values: str) -> dict:
    return filled_in(IAM / "trust" / f"{name}.json", **values)


def filled_in(file: pathlib.Path, **values: str) -> dict:
    values = VALUES | values
    return json.loads(PLACEHOLDER.sub(lambda found: values[found[1]], file.read_text()))


def without(document: dict, sid: str) -> dict:
    """The policy less one of its statements."""
    left = [statement for statement in document["Statement"] if statement["Sid"] != sid]
    return {**document, "Statement": left}


def actions(document: dict) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


def grants(document: dict) -> set[tuple[str, str]]:
    """Every action with every resource that it is allowed on."""
    return {
        (action, resource)
        for statement in document["Statement"]
        for action in statement["Action"]
        for resource in statement["Resource"]
    }


def granting(document: dict, action: str, resource: str) -> set[tuple[str, str]]:
    """What allows an action on one resource; nothing if it is refused. A test sees to it that there is no Deny."""
    allowed = grants(document)
    return {grant for grant in allowed if grant[0] == action and fnmatch.fnmatchcase(resource, grant[1])}
