"""Roles that can be assumed, whom they trust, and the sessions under them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from errors import AwsError
from world import Credential

if TYPE_CHECKING:
    from world import Clock, World

ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/.+")


@dataclass
class Role:
    """`trusts` are accounts; a role with an external id demands it, one without takes any, as in IAM."""

    arn: str
    trusts: list[str]
    external_id: str | None = None
    web_identity_token: str | None = None  # the one token of an OIDC provider that the role trusts, if any
    # What its sessions have, as in a Credential.
    denied: list[str] = field(default_factory=list)
    monitors: list[str] = field(default_factory=list)
    delegates_for: list[str] = field(default_factory=list)
    expires_in_seconds: float | None = None  # shortens its sessions, to below what STS would allow
    max_session_seconds: int = 3600  # MaxSessionDuration; IAM's default

    def __post_init__(self) -> None:
        if not ROLE_ARN.fullmatch(self.arn):
            raise ValueError(f"no ARN of a role: {self.arn}")
        if type(self.trusts) is not list:
            raise ValueError("trusts is a list of accounts")

    @property
    def account(self) -> str:
        return ROLE_ARN.fullmatch(self.arn)[1]


@dataclass
class RoleSession(Credential):
    """Temporary credentials from STS: they end by real time, for the SDK that renews them looks at no other clock."""

    assumed_arn: str = ""
    role: str = ""
    caller: str = ""  # the access key that assumed the role
    region: str = ""  # whose STS was asked
    external_id: str | None = None

    @property
    def arn(self) -> str:
        return self.assumed_arn

    def expired(self, clock: Clock) -> bool:
        return time.time_ns() // 1_000_000 >= self.expires_ms

    def stats(self) -> dict:
        return {
            "access_key": self.access_key,
            "arn": self.arn,
            "role": self.role,
            "caller": self.caller,
            "region": self.region,
            "external_id": self.external_id,
            "expires_ms": self.expires_ms,
        }


def assumable(world: World, credential: Credential, parameters: dict[str, str]) -> Role:
    """The role that a caller may assume; raises what STS answers where it may not."""
    arn = parameters["RoleArn"]
    role = world.roles.get(arn)
    if (
        {"AssumeRole", "sts:AssumeRole"} & set(credential.denied)
        or role is None
        or credential.account not in role.trusts
        or role.external_id not in (None, parameters.get("ExternalId"))
    ):
        said = f"User: {credential.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}"
        raise AwsError("AccessDenied", said, 403)
    asked = int(parameters.get("DurationSeconds", 3600))
    if isinstance(credential, RoleSession) and asked > 3600:
        limit = "the 1 hour session limit for roles assumed by role chaining"
        raise AwsError("ValidationError", f"The requested DurationSeconds exceeds {limit}")
    if asked > role.max_session_seconds:
        limit = "the MaxSessionDuration set for this role."
        raise AwsError("ValidationError", f"The requested DurationSeconds exceeds {limit}")
    return role


def assumable_by_token(world: World, parameters: dict[str, str]) -> Role:
    """The same for a token of an OIDC provider, as pods have."""
    role = world.roles.get(parameters["RoleArn"])
    if role is None or role.web_identity_token is None:
        raise AwsError("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", 403)
    if parameters["WebIdentityToken"] != role.web_identity_token:
        raise AwsError("InvalidIdentityToken", "The ID Token provided is not a valid JWT.")
    return role
