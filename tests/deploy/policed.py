"""The double of AWS, with IAM before it: a request is answered only if the policy of who asks allows it.

What is asked of which resource is AWS's Service Authorization Reference, as far as the double has the operation.
"""

import atexit
import json
import pathlib
import re
import sys
import threading

import policies

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "double"))

import control  # noqa: E402
import sts  # noqa: E402
import wire  # noqa: E402
from errors import AwsError  # noqa: E402
from sts_process import StsProcess  # noqa: E402
from world import World  # noqa: E402

STS = StsProcess()  # one for all: its start takes longer than a test
KEY, SECRET = "AKIADOUBLE", "secret-of-the-double"
# For whom there is nothing to allow: AWS answers it to everybody, or asks the role's trust policy.
FREE = {"sts:GetCallerIdentity", "sts:AssumeRoleWithWebIdentity"}
STORE_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@atexit.register
def end_of_sts() -> None:
    if STS.process:
        STS.process.stdin.close()
        STS.process.stdout.close()
        STS.process.wait(timeout=30)


class Policed:
    """A double with one user, whose policy is `policies[account]`; so are those of roles in other accounts."""

    def __init__(self) -> None:
        self.world = World()
        self.world.sts = STS
        self.policies: dict[str, dict] = {}
        self.asked: set[tuple[str, str]] = set()  # actions and resources, allowed or not
        self.operations: set[str] = set()  # those that need no permission too
        self.refused: list[tuple[str, str]] = []
        self.used: set[tuple[str, str]] = set()  # which action and resource of the policy allowed it
        handler = type("PolicedHandler", (Handler,), {"world": self.world, "policed": self})
        self.server = wire.Server(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()
        self.control("credentials", [{"access_key": KEY, "secret": SECRET, "account": policies.ACCOUNT}])

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def control(self, name: str, body: object) -> object:
        return control.answer(self.world, "POST", f"/control/{name}", body)

    def judge(self, credential, region: str, service: str, operation: str, given: dict) -> bool:
        """Whether the policy of who asks allows an operation on all of its resources."""
        action = f"{service}:{operation}"
        self.operations.add(action)
        if action in FREE:
            return True
        allowed = True
        for resource in resources(self.world, credential.account, region, action, given):
            self.asked.add((action, resource))
            by = policies.granting(self.policies.get(credential.account, {"Statement": []}), action, resource)
            self.used |= by
            if not by:
                self.refused.append((action, resource))
                allowed = False
        return allowed


class Handler(wire.Handler):
    policed: Policed

    def body(self) -> bytes:
        self.read = super().body()
        return self.read

    def serve(self, signing_name: str, operation: str, run, told) -> None:
        def judged(fault):
            # Key and Region are in `Credential=AKIA…/20260601/eu-west-1/sts/aws4_request`; tokens sign nothing.
            scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", self.headers.get("authorization", ""))
            key, region = scope.groups() if scope else (KEY, policies.REGION)
            credential = self.world.credentials[key]
            of_sts = signing_name == "sts"
            given = sts.form(self.read) if of_sts else json.loads(self.read)
            with self.world.lock:
                allowed = self.policed.judge(credential, region, signing_name, operation, given)
            if allowed:
                return run(fault)
            if of_sts:
                raise AwsError("AccessDenied", f"not authorized to perform: sts:{operation}", 403)
            raise wire.access_denied(credential, signing_name, operation)

        super().serve(signing_name, operation, judged, told)


def resources(world: World, account: str, region: str, action: str, given: dict) -> list[str]:
    """The ARNs that an operation is asked of; `*` where its action has no resources."""
    place = f"{region}:{account}"
    match action:
        case "logs:StartQuery":
            names = given.get("logGroupNames") or given.get("logGroupIdentifiers") or [given["logGroupName"]]
            arns = [name if name.startswith("arn:") else f"arn:aws:logs:{place}:log-group:{name}" for name in names]
            return [f"{arn}:log-stream:" for arn in arns]
        case "logs:GetQueryResults":
            query = world.queries[given["queryId"]]
            return [f"{selection.group.arn}:log-stream:" for selection in query.selections]
        case "logs:StopQuery" | "logs:DescribeLogGroups" | "logs:DescribeFieldIndexes" | "cloudtrail:LookupEvents":
            return ["*"]
        case "cloudtrail:StartQuery":
            return [store(place, given["QueryStatement"])]
        case "cloudtrail:DescribeQuery" | "cloudtrail:GetQueryResults" | "cloudtrail:CancelQuery":
            return [store(place, world.executions[given["QueryId"]].text)]
        case "cloudtrail:GetEventDataStore":
            return [store(place, given["EventDataStore"])]
        case "athena:StartQueryExecution" | "athena:GetWorkGroup":
            return [f"arn:aws:athena:{place}:workgroup/{given['WorkGroup']}"]
        case "athena:GetQueryExecution" | "athena:GetQueryResults" | "athena:StopQueryExecution":
            group = world.executions[given["QueryExecutionId"]].request["WorkGroup"]
            return [f"arn:aws:athena:{place}:workgroup/{group}"]
        case "athena:GetTableMetadata":
            return [f"arn:aws:athena:{place}:datacatalog/{given['CatalogName']}"]
        case "sts:AssumeRole":
            return [given["RoleArn"]]
    raise ValueError(f"nobody has said what {action} is asked of")


def store(place: str, text: str) -> str:
    return f"arn:aws:cloudtrail:{place}:eventdatastore/{STORE_ID.search(text)[0]}"
