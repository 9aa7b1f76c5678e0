"""What goes over the wire in answer to a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    body: bytes
    kind: str  # its content type
    request_id: str | None = None  # one is made up where there is none
    code: str | None = None  # of an error
