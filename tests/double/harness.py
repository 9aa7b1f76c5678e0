"""What the double's own tests share: a started double, real botocore clients, and made-up CloudTrail records."""

from __future__ import annotations

import atexit
import functools
import json
import random
import subprocess
import sys
import unittest
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

import botocore.config
import botocore.loaders
import botocore.session

HERE = Path(__file__).resolve().parent
ACCOUNT, REGION, GROUP = "111122223333", "eu-west-1", "trail"
LOADER = botocore.loaders.create_loader()  # one for all clients: it remembers the services' models
T0 = 1_780_308_000_000  # 2026-06-01 10:00:00 UTC


class Double:
    """A double in a process of its own, as the Rust tests start it."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "main.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdin.write(b"start\n")
        self.process.stdin.flush()
        self.endpoint: str = json.loads(self.process.stdout.readline())["endpoint"]

    def close(self) -> int:
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(timeout=10)

    def control(self, name: str, body=None, method: str | None = None):
        data = None if body is None else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        request = urllib.request.Request(f"{self.endpoint}/control/{name}", data, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def client(
        self,
        secret: str = "secret",
        key: str = "AKIADOUBLE",
        token: str | None = None,
        service: str = "logs",
        region: str = REGION,
        **config,
    ):
        """A client that tries once, unless `retries` says otherwise."""
        session = botocore.session.Session()
        session.register_component("data_loader", LOADER)
        session.set_credentials(key, secret, token)
        config.setdefault("retries", {"total_max_attempts": 1})
        return session.create_client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            config=botocore.config.Config(read_timeout=5, **config),
        )


@functools.cache
def shared_double() -> Double:
    """One for all tests of a run: to start one takes longer than most tests."""
    double = Double()
    atexit.register(double.close)
    return double


class DoubleTest(unittest.TestCase):
    """Tests against one double, emptied before each test."""

    double: Double

    @classmethod
    def setUpClass(cls) -> None:
        cls.double = shared_double()

    def setUp(self) -> None:
        self.control = self.double.control
        self.control("reset", {})
        self.control("groups", [{"name": GROUP, "account": ACCOUNT, "region": REGION}])
        self.control("credentials", [{"access_key": "AKIADOUBLE", "secret": "secret", "account": ACCOUNT}])
        self.control("clock", {"real": True})
        self.switch(**{name: 1000 for name in self.control("switches") if name.endswith("_per_second")})
        self.logs = self.double.client()

    def tearDown(self) -> None:
        self.assertEqual(self.control("stats")["broken"], 0)

    def switch(self, **switches) -> None:
        self.control("switches", switches)

    def put(self, *events: tuple[int, dict | str], group: str = GROUP, queryable: int | None = None) -> None:
        made = [
            {
                "timestamp": timestamp,
                "queryable": timestamp if queryable is None else queryable,
                "message": message if isinstance(message, str) else json.dumps(message, separators=(",", ":")),
            }
            for timestamp, message in events
        ]
        self.control("events", {"log_group": group, "account": ACCOUNT, "region": REGION, "events": made})

    def start(self, query: str, start: int = T0 // 1000, end: int = T0 // 1000 + 86_400, **more) -> str:
        if not {"logGroupNames", "logGroupIdentifiers"} & set(more):
            more["logGroupName"] = GROUP
        return self.logs.start_query(queryString=query, startTime=start, endTime=end, **more)["queryId"]

    def ended(self, query_id: str, **more) -> dict:
        while True:
            answer = self.logs.get_query_results(queryId=query_id, **more)
            if answer["status"] not in ("Scheduled", "Running"):
                return answer

    def rows(self, query: str, **more) -> list[dict]:
        return [as_dict(row) for row in self.ended(self.start(query, **more))["results"]]

    def refused(self, code: str, run, *args, **kwargs) -> dict:
        """The error of AWS with which a call fails."""
        with self.assertRaises(botocore.exceptions.ClientError) as caught:
            run(*args, **kwargs)
        self.assertEqual(caught.exception.response["Error"]["Code"], code)
        return caught.exception.response


def as_dict(row: list[dict]) -> dict:
    return {cell["field"]: cell["value"] for cell in row}


def record(**changes) -> dict:
    """A CloudTrail record; a member set to None is left out."""
    made = {
        "eventVersion": "1.11",
        "eventTime": "2026-06-01T10:00:00Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": REGION,
        "requestParameters": None,
        "readOnly": True,
        "recipientAccountId": ACCOUNT,
        "tlsDetails": {"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256"},
    } | changes
    return {name: value for name, value in made.items() if value is not None}


def generated(count: int, seed: int = 7) -> list[tuple[int, dict]]:
    """Records of every shape that matters: missing TLS parts, legacy versions, absent Region, nested arrays."""
    random_ = random.Random(seed)
    made = []
    for _ in range(count):
        at = T0 + random_.randrange(3_600_000)
        tls = {
            "tlsVersion": random_.choice(["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]),
            "cipherSuite": random_.choice(["ECDHE-RSA-AES128-SHA", "TLS_AES_128_GCM_SHA256"]),
            "keyExchange": random_.choice(["x25519", "X25519MLKEM768"]),
            "clientProvidedHostHeader": "s3.eu-west-1.amazonaws.com",
        }
        for name in list(tls):
            if random_.random() < 0.2:
                del tls[name]
        when = datetime.fromtimestamp((at - random_.randrange(900_000)) / 1000, timezone.utc)
        made.append(
            (
                at,
                record(
                    eventTime=f"{when:%Y-%m-%dT%H:%M:%SZ}",
                    eventSource=random_.choice(["s3.amazonaws.com", "ec2.amazonaws.com", "kms.amazonaws.com"]),
                    eventName=random_.choice(["GetObject", "Decrypt", "DescribeInstances"]),
                    awsRegion=random_.choice([REGION, "us-east-1", "", None]),
                    recipientAccountId=random_.choice([ACCOUNT, "444455556666"]),
                    requestParameters={"items": [{"id": number} for number in range(random_.randrange(4))]},
                    tlsDetails=random_.choice([tls, tls, tls, None]),
                ),
            )
        )
    return made
