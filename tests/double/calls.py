"""One request to a service, as its operations see it."""

from __future__ import annotations

from dataclasses import dataclass

from world import Credential, World


@dataclass
class Call:
    world: World
    operation: str
    parameters: dict
    credential: Credential
    region: str
    fault: dict | None = None  # one that lets the operation happen, and is its to carry out

    @property
    def account(self) -> str:
        return self.credential.account

    @property
    def place(self) -> str:
        """Quotas are per account and Region."""
        return f"{self.account}/{self.region}"
