"""Faults that a test has ordered, and which of them the next call of an operation meets.

Actions, one per fault:
  {"error": {"status": 400, "code": ..., "message": ...}}    instead of the operation
  {"reset": "before" | "after"}                              TCP reset, without or with the operation carried out
  {"hang_seconds": n, "carried_out": bool}                   then its answer, or a reset if it was not carried out
  {"garbage": true, "carried_out": false}                    200 with a body that is no JSON
  {"truncate": true, "carried_out": true}                    half of the body that Content-Length promises
  {"query": "Failed" | "Timeout" | "Cancelled" | "Unknown"}  of StartQuery, StartQueryExecution: how its query ends
  {"query": "exhausted" | "retryable"}                       failed for want of resources, or (Athena) only for now
  {"query": "forever" | "vanish"}                            it never ends, or its id is unknown at once

Calls of STS have faults too, but for those of queries; theirs are answered in STS's XML.
Each service has its own words for such an end. An operation is named alone ("StartQuery": of any service) or with the
signing name of its service ("cloudtrail:StartQuery").
"""

from dataclasses import dataclass


@dataclass
class Fault:
    """`skip` calls go well, then `times` calls meet `action`; times -1 is for ever."""

    operation: str
    action: dict
    skip: int = 0
    times: int = 1


ACTIONS = ("error", "reset", "hang_seconds", "garbage", "truncate", "query")
FATES = ("Failed", "Timeout", "Cancelled", "Unknown", "exhausted", "retryable", "forever", "vanish")


class Faults:
    def __init__(self) -> None:
        self.pending: list[Fault] = []

    def append(self, orders: list[dict]) -> None:
        faults = [Fault(**order) for order in orders]
        for fault in faults:
            if not any(name in fault.action for name in ACTIONS):
                raise ValueError(f"a fault's action is one of {ACTIONS}")
            if fault.action.get("query", FATES[0]) not in FATES:
                raise ValueError(f"a query's fate is one of {FATES}")
        self.pending.extend(faults)

    def clear(self) -> None:
        self.pending.clear()

    def next(self, service: str, operation: str) -> dict | None:
        """What this call meets; counts it against the first fault not used up."""
        for fault in self.pending:
            if fault.operation not in (operation, f"{service}:{operation}") or fault.times == 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                return None
            if fault.times > 0:
                fault.times -= 1
            return fault.action
        return None
