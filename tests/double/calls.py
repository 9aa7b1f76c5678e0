"""One request to a service, as its operations see it."""

from __future__ import annotations

from dataclasses import dataclass

from errors import AwsError
from world import Credential, World


@dataclass
class Call:
    world: World
    service: str  # the signing name
    operation: str
    parameters: dict
    credential: Credential
    region: str
    fault: dict | None = None  # one that lets the operation happen, and is its to carry out

    @property
    def account(self) -> str:
        return self.credential.account

    @property
    def name(self) -> str:
        """Operations of two services may have the same name."""
        return f"{self.service}:{self.operation}"

    @property
    def place(self) -> str:
        """Quotas are per account and Region."""
        return f"{self.account}/{self.region}"

    @property
    def fate(self) -> str | None:
        return (self.fault or {}).get("query")

    def check_rate(self, switch: str) -> None:
        """Counts the request, and refuses it over the quota that the switch holds."""
        if not self.world.rates.admit(self.name, self.place, self.world.switches[switch]):
            raise AwsError("ThrottlingException", "Rate exceeded")
