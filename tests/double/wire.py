"""HTTP and awsJson1.1: dispatch by X-Amz-Target, authentication, error bodies, and faults on the wire."""

from __future__ import annotations

import functools
import importlib
import json
import os
import socket
import struct
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import control
from calls import Call
from errors import AwsError
from signature import authenticate
from world import World


@dataclass
class Service:
    """The operations behind one prefix of X-Amz-Target; those that are not locked see to that themselves."""

    signing_name: str
    locked: dict[str, Callable] = field(default_factory=dict)
    unlocked: dict[str, Callable] = field(default_factory=dict)


# The signing name and the modules of a service, by the last part of the prefix of X-Amz-Target: botocore's of
# CloudTrail has the package's name before it.
MODULES = {
    "Logs_20140328": ("logs", ["logs"]),
    "CloudTrail_20131101": ("cloudtrail", ["lake", "history"]),
    "AmazonAthena": ("athena", ["athena"]),
}


@functools.cache
def service_of(target: str) -> Service | None:
    """Loaded when first asked for: parsers of SQL take a while, and most doubles are of Logs Insights alone."""
    if target not in MODULES:
        return None
    signing_name, names = MODULES[target]
    service = Service(signing_name)
    for module in map(importlib.import_module, names):
        service.locked |= module.OPERATIONS
        service.unlocked |= module.UNLOCKED
    return service


JSON = "application/json"
AMZ_JSON = "application/x-amz-json-1.1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    world: World

    def do_GET(self) -> None:
        self.control("GET")

    def do_DELETE(self) -> None:
        self.control("DELETE")

    def do_POST(self) -> None:
        if self.path.startswith("/control/"):
            self.control("POST")
        else:
            self.service()

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def control(self, method: str) -> None:
        body = self.body()
        try:
            answer = control.answer(self.world, method, self.path, json.loads(body) if body else None)
            self.reply(200, answer, JSON)
        except control.Unknown as unknown:
            self.reply(404, {"error": str(unknown)}, JSON)
        except (ValueError, TypeError, KeyError, OSError) as error:  # a wrong order is the test's mistake
            self.reply(400, {"error": repr(error)}, JSON)
        except Exception:
            self.reply(500, error_body(self.broke(f"{method} {self.path}")), JSON)

    def service(self) -> None:
        """One request to AWS, with whatever fault has been ordered for it."""
        body = self.body()
        prefix, _, operation = self.headers.get("x-amz-target", "").rpartition(".")
        service = service_of(prefix.rpartition(".")[2])
        signing_name = service.signing_name if service else prefix
        name = f"{signing_name}:{operation}"
        self.world.count_call(name)
        with self.world.lock:
            fault = self.world.faults.next(signing_name, operation)
        action = fault or {}
        if not carried_out(action):
            self.broken_off(action, name, None)
            return
        try:
            if service is None or not {operation} & {*service.locked, *service.unlocked}:
                raise AwsError("UnknownOperationException", f"the double has no operation {name}")
            status, answer = 200, self.operate(service, operation, body, fault)
        except AwsError as error:
            self.world.count_error(name, error.code)
            status, answer = error.status, error_body(error)
        except Exception:
            status, answer = 500, error_body(self.broke(name))
        if action and "query" not in action:
            self.broken_off(action, name, (status, answer))
        else:
            self.reply(status, answer, AMZ_JSON)

    def broke(self, name: str) -> AwsError:
        """Tells of a bug in the double itself, from within its handler; tests assert that there was none."""
        traceback.print_exc(file=sys.stderr)
        with self.world.lock:
            self.world.broken += 1
        self.world.count_error(name, "DoubleBroke")
        return AwsError("DoubleBroke", traceback.format_exc())

    def operate(self, service: Service, operation: str, body: bytes, fault: dict | None) -> dict:
        signing_name = service.signing_name
        credential, region = authenticate(self.world, self.command, self.path, self.headers, body, signing_name)
        if {operation, f"{signing_name}:{operation}"} & set(credential.denied):
            raise access_denied(credential, signing_name, operation)
        try:
            parameters = json.loads(body)
        except ValueError:
            raise AwsError("SerializationException", "the body is not JSON") from None
        if type(parameters) is not dict:
            raise AwsError("SerializationException", "the body is not an object")
        call = Call(self.world, signing_name, operation, parameters, credential, region, fault)
        if operation in service.unlocked:
            return service.unlocked[operation](call)
        with self.world.lock:
            return service.locked[operation](call)

    def broken_off(self, action: dict, name: str, answered: tuple[int, dict] | None) -> None:
        """Answers as a fault says; `answered` is what the operation would have, if it was carried out."""
        if "error" in action:
            error = action["error"]
            self.world.count_error(name, error["code"])
            fault = AwsError(error["code"], error.get("message", ""), error.get("status"))
            self.reply(fault.status, error_body(fault), AMZ_JSON)
        elif "hang_seconds" in action:
            time.sleep(action["hang_seconds"])
            if answered is None:
                self.reset()
            else:
                self.reply(*answered, AMZ_JSON)
        elif "garbage" in action:
            self.send(200, b"<html>no JSON at all", AMZ_JSON)
        elif "truncate" in action:
            body = json.dumps(answered[1]).encode()
            self.send(answered[0], body[: len(body) // 2], AMZ_JSON, claimed=len(body))
            self.close_connection = True
        else:
            self.reset()

    def reset(self) -> None:
        """Closes the connection with a TCP reset: no time to linger over what is unsent."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def reply(self, status: int, answer: dict | list, kind: str) -> None:
        self.send(status, json.dumps(answer).encode(), kind)

    def send(self, status: int, body: bytes, kind: str, claimed: int | None = None) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(self.world.clock.now_ms() / 1000, usegmt=True))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        self._headers_buffer.append(b"\r\n" + body)  # one write, one packet where it fits
        try:
            self.flush_headers()
        except OSError:
            self.close_connection = True  # the client has gone

    def log_message(self, *_: object) -> None:
        """Nothing: stderr is for the double's own errors."""


def carried_out(action: dict) -> bool:
    """Whether the operation happens although its answer is spoilt."""
    if "error" in action:
        return False
    if "reset" in action:
        return action["reset"] == "after"
    if "hang_seconds" in action:
        return bool(action.get("carried_out", False))
    return bool(action.get("carried_out", "garbage" not in action))


def error_body(error: AwsError) -> dict:
    return {"__type": error.code, "message": error.message, **error.members}


def access_denied(credential, service: str, operation: str) -> AwsError:
    action = f"{service}:{operation}"
    return AwsError(
        "AccessDeniedException",
        f"User: {credential.arn} is not authorized to perform: {action} on resource: * "
        f"because no identity-based policy allows the {action} action",
    )


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """A client that resets its connection is no error of the double."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(world: World, port: int) -> Server:
    """The server, bound to loopback only; the caller runs it."""
    return Server(("127.0.0.1", port), type("BoundHandler", (Handler,), {"world": world}))
