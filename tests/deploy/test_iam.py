"""The IAM policies: their grammar, and that the real program needs all that they allow and nothing else."""

import concurrent.futures
import dataclasses
import json
import pathlib
import re
import tempfile
import time
import unittest

import policed
import policies
import program
from moto.iam.policy_validation import IAMPolicyDocumentValidator, IAMTrustPolicyDocumentValidator
from policies import ACCOUNT, REGION, STORE
from policy_sentry.querying.actions import get_action_data

OTHER = "444455556666"  # the account of `role_arn`
READER = policies.VALUES["role_arn"]
# What is allowed and never asked of AWS by the program itself, each with who asks for it in the name of the program.
BY_OTHERS = {
    "glue:GetDatabase": "Athena, to find the database, and `default`, which it always looks for",
    "glue:GetTable": "Athena, to find the table",
    "glue:GetPartitions": "Athena, where partitions are added by hand",
    "lakeformation:GetDataAccess": "Athena, to read the files of a federated store",
    "s3:ListBucket": "Athena, to find the files of a day, and its results",
    "s3:GetObject": "Athena, to read the logs, and its results",
    "s3:GetBucketLocation": "Athena, for the Region of the bucket of results",
    "s3:PutObject": "Athena, to keep its results",
    "s3:AbortMultipartUpload": "Athena, to keep large results",
    "s3:ListMultipartUploadParts": "Athena, to keep large results",
    "kms:Decrypt": "Logs, Lake and S3, to read what is under a key",
    "kms:DescribeKey": "Logs, as AWS's own role for scheduled queries has it",
    "kms:GenerateDataKey": "Lake and S3, to keep results under a key",
    "sts:TagSession": "AWS, where credentials of pod identity assume a role, for their tags go along",
}
# The access levels of AWS's Service Authorization Reference that a policy may have, and who may have others.
READS = {"Read", "List"}
WRITES = {
    r"cloudtrail:(StartQuery|CancelQuery)": "a query, which changes nothing",
    r"athena:(Start|Stop)QueryExecution": "a query, which changes nothing but its results",
    r"s3:(PutObject|AbortMultipartUpload)": "Athena's results",
    r"kms:(Decrypt|GenerateDataKey)": "AWS calls every use of a key a write",
    r"lakeformation:GetDataAccess": "AWS calls it a write, though it gives access to read",
    r"sts:(AssumeRole|TagSession)": "the role's own policy says what it may do",
}
MANAGED_POLICY = 6144  # the most characters of a managed policy, white space aside


def fits(patterns: dict[str, str], action: str) -> list[str]:
    return [pattern for pattern in patterns if re.fullmatch(pattern, action)]


def authorization(action: str) -> dict[str, str]:
    """The ARNs that an action can be allowed on and its access level for each, as AWS's reference has them."""
    service, _, operation = action.partition(":")
    known = get_action_data(service, operation)
    return {each["resource_arn_format"]: each["access_level"] for each in known[service]} if known else {}


class Documents(unittest.TestCase):
    def test_every_document_has_the_grammar_of_iam(self) -> None:
        for file, validator in [(file, IAMPolicyDocumentValidator) for file in policies.POLICIES] + [
            (file, IAMTrustPolicyDocumentValidator) for file in policies.TRUSTS
        ]:
            with self.subTest(file.name):
                document = policies.filled_in(file)
                validator(json.dumps(document)).validate()
                self.assertEqual(document["Version"], "2012-10-17")
                self.assertLess(len(json.dumps(document, separators=(",", ":"))), MANAGED_POLICY)
                sids = [statement["Sid"] for statement in document["Statement"]]
                self.assertEqual(len(sids), len(set(sids)))
                for statement in document["Statement"]:
                    self.assertEqual(statement["Effect"], "Allow")
                    self.assertEqual(statement["Action"], sorted(set(statement["Action"])))
                    self.assertFalse({"NotAction", "NotResource", "NotPrincipal"} & set(statement))

    def test_no_action_is_a_pattern_and_each_exists(self) -> None:
        for file in policies.POLICIES:
            for action in policies.actions(policies.filled_in(file)):
                with self.subTest(file.name, action=action):
                    self.assertRegex(action, r"^[a-z0-9]+:[A-Za-z]+$")
                    self.assertTrue(authorization(action), "AWS has no such action")

    def test_resources_are_as_narrow_as_aws_allows(self) -> None:
        for file in policies.POLICIES:
            for action, resource in policies.grants(policies.filled_in(file)):
                with self.subTest(file.name, action=action, resource=resource):
                    formats = set(authorization(action))
                    if resource == "*":
                        self.assertEqual(formats, {"*"}, "it can be allowed on less")
                        continue
                    # ${Partition}, ${Account} … hold no colon and no slash, the last one anything.
                    whole = [re.sub(r"\\\$\\\{\w+\\\}$", ".+", re.escape(one)) for one in formats - {"*"}]
                    patterns = [re.sub(r"\\\$\\\{\w+\\\}", "[^:/]*", one) for one in whole]
                    fitting = [pattern for pattern in patterns if re.fullmatch(pattern, resource)]
                    self.assertTrue(fitting, "AWS has no such resource")
                    # A pattern only behind what names the resource.
                    name = resource.removesuffix(":*").removesuffix("/AWSLogs/*").removesuffix("/athena/*")
                    self.assertNotIn("*", name)

    def test_nothing_is_written_but_results(self) -> None:
        used = set()
        for file in policies.POLICIES:
            for action, resource in policies.grants(policies.filled_in(file)):
                if not set(authorization(action).values()) <= READS:
                    with self.subTest(file.name, action=action):
                        self.assertTrue(fits(WRITES, action))
                        used |= set(fits(WRITES, action))
                        if action.startswith("s3:"):
                            self.assertEqual(resource, "arn:aws:s3:::results/athena/*")
        self.assertEqual(used, set(WRITES))

    def test_every_placeholder_is_told_of_and_every_one_told_of_is_used(self) -> None:
        files = policies.POLICIES + policies.TRUSTS
        used = {name for file in files for name in policies.PLACEHOLDER.findall(file.read_text())}
        self.assertEqual(used, set(policies.VALUES))
        told = re.findall(r"^\| `\$\{(\w+)\}` \|", (policies.IAM / "README.md").read_text(), re.MULTILINE)
        self.assertEqual(sorted(told), sorted(used))

    def test_a_federated_store_differs_from_a_trail_by_how_it_is_read(self) -> None:
        trail = {statement["Sid"]: statement for statement in policies.policy("athena")["Statement"]}
        store = {statement["Sid"]: statement for statement in policies.policy("athena_lake")["Statement"]}
        self.assertEqual(set(trail) - set(store), {"FindLogs", "ReadLogs"})
        self.assertEqual(set(store) - set(trail), {"ReadStore"})
        for sid in set(store) & set(trail):
            self.assertEqual(store[sid], trail[sid])


class TrustedPrincipals(unittest.TestCase):
    """Each names one principal, and a condition that nobody else meets where AWS has one."""

    def only_statement(self, name: str) -> dict:
        (statement,) = policies.trust(name)["Statement"]
        self.assertNotIn("*", json.dumps(statement))
        return statement

    def test_a_service_account_by_irsa(self) -> None:
        statement = self.only_statement("irsa")
        self.assertEqual(statement["Principal"], {"Federated": policies.VALUES["oidc_provider_arn"]})
        self.assertEqual(statement["Action"], ["sts:AssumeRoleWithWebIdentity"])
        told = {
            f"{policies.OIDC}:aud": "sts.amazonaws.com",
            f"{policies.OIDC}:sub": "system:serviceaccount:monitoring:cloudtrail-tls-exporter",
        }
        self.assertEqual(statement["Condition"], {"StringEquals": told})

    def test_a_service_account_by_pod_identity(self) -> None:
        statement = self.only_statement("pod_identity")
        self.assertEqual(statement["Principal"], {"Service": "pods.eks.amazonaws.com"})
        self.assertEqual(statement["Action"], ["sts:AssumeRole", "sts:TagSession"])
        tags = {key: value for told in statement["Condition"].values() for key, value in told.items()}
        self.assertEqual(
            tags,
            {
                "aws:RequestTag/kubernetes-namespace": "monitoring",
                "aws:RequestTag/kubernetes-service-account": "cloudtrail-tls-exporter",
                "aws:RequestTag/eks-cluster-arn": policies.VALUES["cluster_arn"],
            },
        )

    def test_an_instance(self) -> None:
        """AWS sends no account along; who passes a role to an instance must be of the role's account."""
        statement = self.only_statement("ec2")
        self.assertEqual(statement["Principal"], {"Service": "ec2.amazonaws.com"})
        self.assertEqual(statement["Action"], ["sts:AssumeRole"])
        self.assertNotIn("Condition", statement)

    def test_a_task_of_ecs(self) -> None:
        statement = self.only_statement("ecs")
        self.assertEqual(statement["Principal"], {"Service": "ecs-tasks.amazonaws.com"})
        self.assertEqual(statement["Action"], ["sts:AssumeRole"])
        self.assertEqual(statement["Condition"], {"StringEquals": {"aws:SourceAccount": ACCOUNT}})

    def test_the_exporter_of_another_account(self) -> None:
        statement = self.only_statement("cross_account")
        self.assertEqual(statement["Principal"], {"AWS": policies.VALUES["exporter_role_arn"]})
        self.assertEqual(statement["Action"], ["sts:AssumeRole", "sts:TagSession"])
        self.assertEqual(statement["Condition"], {"StringEquals": {"sts:ExternalId": "some-id"}})


# Of each policy that belongs to a source: the source, and where the double keeps its events.
LOGS = 'type = "logs_insights"\nlog_groups = ["trail"]\nscope = "outdated"\n'
LAKE = f'type = "lake"\nevent_data_store = "{STORE}"\n'
ATHENA = 'type = "athena"\noutput_location = "s3://results/athena/"\ninterval = "1h"\nsettle = "5m"\n'
TRAIL = f'{ATHENA}database = "logs"\ntable = "cloudtrail_logs"\n'
FEDERATED = f'{ATHENA}database = "aws:cloudtrail"\ntable = "{STORE}"\nlayout = "lake"\n'
SOURCES = {
    "logs_insights": (LOGS, {"log_group": "trail"}),
    "lake": (LAKE, {"event_data_store": STORE}),
    "athena": (TRAIL, {"table": "logs.cloudtrail_logs"}),
    "athena_lake": (FEDERATED, {"event_data_store": STORE}),
    "event_history": ('type = "event_history"\n', {"event_history": True}),
}
# The operations that start a query, ask how it is, stop it, and have its answer; the event history has no query.
QUERY = {
    "logs_insights": ("logs", "StartQuery", "GetQueryResults", "StopQuery", "GetQueryResults"),
    "lake": ("cloudtrail", "StartQuery", "DescribeQuery", "CancelQuery", "GetQueryResults"),
    "athena": ("athena", "StartQueryExecution", "GetQueryExecution", "StopQueryExecution", "GetQueryResults"),
    "athena_lake": ("athena", "StartQueryExecution", "GetQueryExecution", "StopQueryExecution", "GetQueryResults"),
}
FEDERATED_VALUES = {"database": "aws:cloudtrail", "table": STORE}


class Rig:
    """The program over a double that has all sources in an account, under a policy."""

    def __init__(self, test: unittest.TestCase, name: str, account: str = ACCOUNT) -> None:
        self.source, place = SOURCES[name]
        self.policed = policed.Policed()
        test.addCleanup(self.policed.close)
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        where = {"account": account, "region": REGION}
        control = self.policed.control
        control("switches", {"polls_scheduled": 0, "polls_running": 1, "lake_cancels_per_second": 100})
        control("groups", [{"name": "trail", **where}])
        control("stores", [{"id": STORE, **where}])
        table = {"catalog": "AwsDataCatalog", "key_exchange": True, **where}
        control(
            "tables",
            [
                {"database": "logs", "table": "cloudtrail_logs", "layout": "timestamp", **table},
                {"database": "aws:cloudtrail", "table": STORE, "layout": "lake", **table},
            ],
        )
        control("events", {**place, **where, "events": events(account)})

    def config(self, more: str) -> list[str]:
        file = self.folder / "config.toml"
        endpoint = f'endpoint_url = "{self.policed.endpoint}"\n'
        file.write_text(f"[state]\nephemeral = true\n[[sources]]\nname = 'source'\n{self.source}{endpoint}{more}")
        return [f"--config.file={file}"]

    def variables(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": policed.KEY,
            "AWS_SECRET_ACCESS_KEY": policed.SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_STS": self.policed.endpoint,
        }

    def told(self, more: str = "") -> dict[str, dict]:
        """What `doctor` tells of each check."""
        ran = program.run(["doctor", "--json", *self.config(more)], self.variables())
        return {check["check"]: check for source in json.loads(ran.stdout)["sources"] for check in source["checks"]}

    def doctor(self, more: str = "") -> dict[str, str]:
        """The outcome of each check."""
        return {name: check["verdict"] for name, check in self.told(more).items()}

    def serve(self, until: str, variables: dict[str, str] | None = None) -> None:
        """Serves until an operation was asked for, and a little longer."""
        arguments = ["serve", "--web.listen-address=127.0.0.1:0", *self.config("")]
        served = program.Served(arguments, variables or self.variables(), self.folder / "log")
        try:
            program.wait_for(until, lambda: until in self.policed.operations or self.policed.refused)
            time.sleep(0.5)
        finally:
            served.end()


def events(account: str) -> list[dict]:
    """A call each minute of the last four hours, a third of them outdated."""
    now = int(time.time()) // 60 * 60
    made = []
    for minute in range(2, 240):
        at = now - minute * 60
        record = {
            "eventVersion": "1.11",
            "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
            "eventSource": "s3.amazonaws.com",
            "eventName": "GetObject",
            "awsRegion": REGION,
            "eventID": f"{account}-{minute}",
            "recipientAccountId": account,
            "tlsDetails": {"tlsVersion": ("TLSv1.1", "TLSv1.2", "TLSv1.3")[minute % 3], "cipherSuite": "X"},
        }
        made.append({"timestamp": at * 1000, "queryable": at * 1000, "message": json.dumps(record)})
    return made


# The policies of a source in the README, by what its rows begin with, and of which statement if it is one's alone.
README_ROWS = {
    "for `doctor`": lambda name: [only(policies.policy(name), "ForDoctor")],
    "for log groups under a KMS key": lambda name: [policies.policy("kms/logs_insights")],
    "for a store under a KMS key": lambda name: [policies.policy("kms/lake")],
    "under KMS keys": lambda name: [policies.policy("kms/athena_logs"), policies.policy("kms/athena_results")],
    "with `layout": lambda name: [only(policies.policy("athena_lake"), "ReadStore")],
    "": lambda name: [policies.without(policies.policy(name), "ForDoctor")],
}


def only(document: dict, sid: str) -> dict:
    return {**document, "Statement": [each for each in document["Statement"] if each["Sid"] == sid]}


class Readme(unittest.TestCase):
    def test_its_table_has_the_actions_of_the_policies(self) -> None:
        told: dict[tuple[str, str], set[str]] = {}  # by source and beginning
        source = ""
        text = (policies.ROOT / "README.md").read_text()
        table = text.split("### What the exporter must be allowed")[1].split("\n\n")[2]
        for row in table.splitlines()[2:]:
            first, what, on = [cell.strip() for cell in row.strip("|").split(" | ")]
            source = first or source
            name = "assume_roles" if source == "any with `roles`" else source.strip("`")
            beginning = next(beginning for beginning in README_ROWS if what.startswith(beginning))
            actions = set(re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", what))
            told.setdefault((name, beginning), set()).update(actions)
            for document in README_ROWS[beginning](name):
                for action, resource in policies.grants(document):
                    if action in actions:
                        self.assertEqual(on == "`*`", resource == "*", row)
        documents = {key: README_ROWS[key[1]](key[0]) for key in told}
        allowed = {key: set().union(*map(policies.actions, of_key)) for key, of_key in documents.items()}
        self.assertEqual(told, allowed)
        self.assertEqual({name for name, _ in told}, set(SOURCES) - {"athena_lake"} | {"assume_roles"})


@dataclasses.dataclass
class Used:
    """What a source used of its policy."""

    document: dict
    served: set[tuple[str, str]]  # by `serve`, without the statement for `doctor`
    all: set[tuple[str, str]]  # with `doctor`
    stopped: bool  # the query that ran at the end of `serve`
    refused: list[tuple[str, str]]
    checks: dict[str, str]
    broken: int


class Use(unittest.TestCase):
    def use(self, name: str) -> Used:
        """Serves, serves while a query runs that is to be stopped, and looks with `doctor`."""
        document = policies.policy(name, **(FEDERATED_VALUES if name == "athena_lake" else {}))
        rig = Rig(self, name)
        seen = rig.policed
        seen.policies[ACCOUNT] = policies.without(document, "ForDoctor")
        if name not in QUERY:
            rig.serve("cloudtrail:LookupEvents")
            stopped = True
        else:
            service, start, poll, stop, result = QUERY[name]
            rig.serve(f"{service}:{result}")
            order = {"operation": f"{service}:{start}", "times": -1, "action": {"query": "forever"}}
            seen.control("faults", [order])
            seen.operations.clear()
            rig.serve(f"{service}:{poll}")
            stopped = f"{service}:{stop}" in seen.operations
            seen.world.faults.clear()
        served = set(seen.used)
        seen.policies[ACCOUNT] = document
        checks = rig.doctor()
        return Used(document, served, set(seen.used), stopped, list(seen.refused), checks, seen.world.broken)

    def test_each_source_is_allowed_what_it_asks_for_and_nothing_else(self) -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:  # they wait more than they compute
            of_sources = dict(zip(SOURCES, pool.map(self.use, SOURCES)))
        for name, used in of_sources.items():
            with self.subTest(name):
                self.assertEqual((used.refused, used.broken, used.stopped), ([], 0, True))
                self.assertNotIn("failed", used.checks.values(), used.checks)
                self.assertEqual(used.checks["records"], "ok", used.checks)
                left = {grant for grant in policies.grants(used.document) - used.all if grant[0] not in BY_OTHERS}
                self.assertEqual(left, set(), "allowed and never asked for")
                serving = policies.grants(policies.without(used.document, "ForDoctor"))
                self.assertEqual(used.all - used.served, policies.grants(used.document) - serving)

    def test_doctor_tells_what_to_allow_it_as_the_policy_does(self) -> None:
        document = policies.policy("logs_insights")
        rig = Rig(self, "logs_insights")
        rig.policed.policies[ACCOUNT] = policies.without(document, "ForDoctor")
        check = rig.told()["field_index"]
        ((action, resource),) = policies.grants(only(document, "ForDoctor"))
        self.assertEqual(check["verdict"], "warning")
        self.assertIn(f"allow {action} on `{resource}`", check["hint"])

    def test_a_policy_of_another_resource_is_refused(self) -> None:
        others = {
            "logs_insights": {"log_group_arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:trai"},
            "lake": {"event_data_store_arn": policies.VALUES["event_data_store_arn"][:-1]},
            "athena": {"workgroup": "secondary"},
        }
        for name, values in others.items():
            with self.subTest(name):
                rig = Rig(self, name)
                rig.policed.policies[ACCOUNT] = policies.policy(name, **values)
                self.assertIn("failed", rig.doctor().values())
                self.assertTrue(rig.policed.refused)

    def test_the_reasons_for_what_is_not_asked_for_are_all_needed(self) -> None:
        documents = {policies.name(file): policies.filled_in(file) for file in policies.POLICIES}
        self.assertLessEqual(set(BY_OTHERS), set().union(*map(policies.actions, documents.values())))
        # The other test looks at the policies of sources; nothing in the rest is asked for by the program.
        for name in set(documents) - set(SOURCES) - {"assume_roles"}:
            self.assertLessEqual(policies.actions(documents[name]), set(BY_OTHERS), name)
        self.assertEqual(policies.actions(documents["assume_roles"]) - set(BY_OTHERS), {"sts:AssumeRole"})

    def test_a_role_of_another_account_is_assumed_as_its_trust_policy_says(self) -> None:
        (trust,) = policies.trust("cross_account")["Statement"]
        exporter = trust["Principal"]["AWS"].split(":")[4]
        external_id = trust["Condition"]["StringEquals"]["sts:ExternalId"]
        rig = Rig(self, "event_history", OTHER)
        seen = rig.policed
        seen.control("roles", [{"arn": READER, "trusts": [exporter], "external_id": external_id}])
        seen.policies = {ACCOUNT: policies.policy("assume_roles"), OTHER: policies.policy("event_history")}
        checks = rig.doctor(f'roles = [{{ arn = "{READER}", external_id = "{external_id}" }}]\n')
        self.assertEqual((checks["identity"], checks["lookup_events"]), ("ok", "ok"), checks)
        self.assertEqual(seen.refused, [])
        self.assertEqual(seen.used, {("sts:AssumeRole", READER), ("cloudtrail:LookupEvents", "*")})

        checks = rig.doctor(f'roles = [{{ arn = "{READER}", external_id = "another" }}]\n')
        self.assertEqual(checks["identity"], "failed", checks)
        seen.policies[ACCOUNT] = policies.policy("assume_roles", role_arn=f"{READER}-2")
        rig.doctor(f'roles = [{{ arn = "{READER}", external_id = "{external_id}" }}]\n')
        self.assertEqual(set(seen.refused), {("sts:AssumeRole", READER)})

    def test_a_pods_token_is_taken_as_the_trust_policy_of_irsa_says(self) -> None:
        (trust,) = policies.trust("irsa")["Statement"]
        rig = Rig(self, "event_history", OTHER)
        token = rig.folder / "token"
        token.write_text("token-of-the-pod")
        seen = rig.policed
        seen.control("roles", [{"arn": READER, "trusts": [], "web_identity_token": "token-of-the-pod"}])
        seen.policies = {OTHER: policies.policy("event_history")}
        rig.serve(
            "cloudtrail:LookupEvents",
            {
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
                "AWS_ROLE_ARN": READER,
                "AWS_REGION": REGION,
                "AWS_ENDPOINT_URL_STS": seen.endpoint,
            },
        )
        self.assertEqual(seen.refused, [])
        of_sts = [operation for operation in seen.operations if operation.startswith("sts:")]
        self.assertEqual(of_sts, trust["Action"])


if __name__ == "__main__":
    unittest.main()
