"""The scripted history: what is called, by whom and with which TLS, in chapters, written as CloudTrail's log files.

The chapters, in their order:

    clean       every call on TLS 1.2 or newer: half of them on TLS 1.3, a quarter with post-quantum key exchange
    legacy      the same, and a program on TLS 1.1 (`LEGACY`) calls a service that was clean for ten days
    migration   that program is gone; 7 of 8 calls are on TLS 1.3, 6 of 8 post-quantum
    failing     nothing is delivered, and the folder is gone

Each delivery is the same calls for each account, so that shares are known exactly.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

ACCOUNTS = ("111122223333", "444455556666")
REGION = "eu-central-1"
CHAPTERS = ("clean", "legacy", "migration", "failing")
PAST_MINUTES = 10  # a minute is a day: longer than the quiet period
DELIVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Caller:
    role: str
    user_agent: str
    tls_version: str | None = None
    cipher_suite: str | None = None
    key_exchange: str | None = None

    def with_tls(self, version: str, suite: str, exchange: str | None) -> Caller:
        return Caller(self.role, self.user_agent, version, suite, exchange)


@dataclass(frozen=True)
class Calls:
    """So many records of a call, by a caller."""

    service: str
    event: str
    caller: Caller
    number: int


TLS12 = ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "secp256r1")
TLS13 = ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "x25519")
POST_QUANTUM = ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768")

CHECKOUT = Caller("checkout-api", "aws-sdk-rust/1.3.14 os/linux lang/rust#1.95.0")
LOADER = Caller("warehouse-loader", "aws-sdk-java/2.25.60 md/io#sync lang/java#17.0.12")
CONFIG = Caller("config-recorder", "config.amazonaws.com")  # AWS itself: no TLS details

CLEAN = (
    Calls("s3", "GetObject", CHECKOUT.with_tls(*POST_QUANTUM), 2),
    Calls("s3", "GetObject", LOADER.with_tls(*TLS12), 2),
    Calls("kms", "Decrypt", CHECKOUT.with_tls(*TLS13), 2),
    Calls("dynamodb", "PutItem", LOADER.with_tls(*TLS12), 2),
    Calls("ec2", "DescribeInstances", CONFIG, 1),
)
MIGRATED = (
    Calls("s3", "GetObject", CHECKOUT.with_tls(*POST_QUANTUM), 2),
    Calls("s3", "GetObject", LOADER.with_tls(*POST_QUANTUM), 2),
    Calls("kms", "Decrypt", CHECKOUT.with_tls(*POST_QUANTUM), 2),
    Calls("dynamodb", "PutItem", LOADER.with_tls(*TLS13), 1),
    Calls("dynamodb", "PutItem", LOADER.with_tls(*TLS12), 1),
    Calls("ec2", "DescribeInstances", CONFIG, 1),
)
LEGACY_ACCOUNT = ACCOUNTS[1]
LEGACY = Calls(
    "dynamodb",
    "PutItem",
    Caller(
        "payroll-batch",
        "aws-sdk-java/1.7.4 Linux/2.6.32 Java_HotSpot(TM)_64-Bit_Server_VM/1.7.0_80",
        "TLSv1.1",
        "ECDHE-RSA-AES128-SHA",
    ),
    1,
)
LEGACY_PRINCIPAL = f"arn:aws:iam::{LEGACY_ACCOUNT}:role/{LEGACY.caller.role}"


def calls_of(chapter: str, account: str) -> tuple[Calls, ...]:
    """What one delivery to an account holds."""
    if chapter == "legacy" and account == LEGACY_ACCOUNT:
        return (*CLEAN, LEGACY)
    return {"clean": CLEAN, "legacy": CLEAN, "migration": MIGRATED, "failing": ()}[chapter]


def record(calls: Calls, account: str, at: datetime) -> dict:
    caller = calls.caller
    made = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AWSService", "invokedBy": caller.user_agent},
        "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": f"{calls.service}.amazonaws.com",
        "eventName": calls.event,
        "awsRegion": REGION,
        "sourceIPAddress": "198.51.100.7",
        "userAgent": caller.user_agent,
        "requestParameters": None,
        "responseElements": None,
        "requestID": str(uuid.uuid4()),
        "eventID": str(uuid.uuid4()),
        "readOnly": not calls.event.startswith("Put"),
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": account,
        "eventCategory": "Management",
    }
    if caller.tls_version:
        role = f"arn:aws:iam::{account}:role/{caller.role}"
        made["userIdentity"] = {
            "type": "AssumedRole",
            "arn": f"arn:aws:sts::{account}:assumed-role/{caller.role}/session",
            "accountId": account,
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role, "accountId": account}},
        }
        made["tlsDetails"] = {
            "tlsVersion": caller.tls_version,
            "cipherSuite": caller.cipher_suite,
            "clientProvidedHostHeader": f"{calls.service}.{REGION}.amazonaws.com",
        }
        if caller.key_exchange:
            made["tlsDetails"]["keyExchange"] = caller.key_exchange
    return made


def records(chapter: str, account: str, at: datetime) -> Iterator[dict]:
    for calls in calls_of(chapter, account):
        for _ in range(calls.number):
            yield record(calls, account, at)


class History:
    """Delivers files below `trail`: ten minutes of the past at once, then each second what the chapter holds. It is the
    first chapter until another is entered.

    Files of the past are named as AWS names them, by the minute of their delivery. A minute is a day here, and files
    of now must not all seem as old as its begin: their names have no time, and then the newest `eventTime` in a file,
    which is now, is its delivery for the exporter.
    """

    def __init__(self, trail: Path) -> None:
        self.trail = trail
        self.chapter = CHAPTERS[0]
        self._stop = threading.Event()
        self._lock = threading.Lock()  # a chapter begins between two deliveries
        self._thread = threading.Thread(target=self._deliver, name="history", daemon=True)

    def start(self) -> None:
        now = datetime.now(timezone.utc).replace(second=0, microsecond=0)
        for minutes in range(PAST_MINUTES, 0, -1):
            delivered = now - timedelta(minutes=minutes)
            for account in ACCOUNTS:
                self._write(account, delivered - timedelta(seconds=30), f"{delivered:%Y%m%dT%H%MZ}_")
        self._thread.start()

    def enter(self, chapter: str) -> None:
        with self._lock:
            self.chapter = chapter
            if chapter == "failing":
                self.trail.rename(self.trail.with_name("away"))

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _deliver(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            with self._lock:
                if self.chapter != "failing":
                    for account in ACCOUNTS:
                        self._write(account, datetime.now(timezone.utc))
            due += DELIVERY_SECONDS
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _write(self, account: str, at: datetime, stamp: str = "") -> None:
        """Writes beside the file and renames: no reader sees a part of it."""
        folder = self.trail / "AWSLogs" / account / "CloudTrail" / REGION / f"{at:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{account}_CloudTrail_{REGION}_{stamp}{uuid.uuid4().hex[:16]}.json.gz"
        text = json.dumps({"Records": list(records(self.chapter, account, at))})
        part = file.with_suffix(".part")
        part.write_bytes(gzip.compress(text.encode(), compresslevel=1))
        part.rename(file)
