"""HTTP and awsJson1.1: dispatch by X-Amz-Target or to STS, authentication, error bodies, and faults on the wire."""

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
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import control
import sts
from answers import Answer
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
            self.reply(200, answer)
        except control.Unknown as unknown:
            self.reply(404, {"error": str(unknown)})
        except (ValueError, TypeError, KeyError, OSError) as error:  # a wrong order is the test's mistake
            self.reply(400, {"error": repr(error)})
        except Exception:
            name = f"{method} {self.path}"
            error = self.broke(name)
            self.world.count_error(name, error.code)
            self.send(json_error(error))

    def service(self) -> None:
        """One request to AWS."""
        body = self.body()
        if sts.is_query(self.headers, body):
            answer = functools.partial(sts.answer, self.world, self.command, self.path, self.headers, body)
            self.serve("sts", sts.operation(body), lambda _: answer(), sts.error_answer)
            return
        prefix, _, operation = self.headers.get("x-amz-target", "").rpartition(".")
        service = service_of(prefix.rpartition(".")[2])
        operate = functools.partial(self.operate, service, operation, body)
        self.serve(service.signing_name if service else prefix, operation, operate, json_error)

    def serve(
        self,
        signing_name: str,
        operation: str,
        run: Callable[[dict | None], Answer],
        told: Callable[[AwsError], Answer],
    ) -> None:
        """Runs an operation with whatever fault has been ordered for it; `told` puts errors into its protocol."""
        name = f"{signing_name}:{operation}"
        self.world.count_call(name)
        with self.world.lock:
            fault = self.world.faults.next(signing_name, operation)
        action = fault or {}
        answer = None
        if carried_out(action):
            try:
                answer = run(fault)
            except AwsError as error:
                answer = told(error)
            except Exception:
                answer = told(self.broke(name))
            if answer.code is not None:
                self.world.count_error(name, answer.code)
        if action and "query" not in action:
            self.broken_off(action, name, answer, told)
        else:
            self.send(answer)

    def broke(self, name: str) -> AwsError:
        """Tells of a bug in the double itself, from within its handler; tests assert that there was none."""
        traceback.print_exc(file=sys.stderr)
        with self.world.lock:
            self.world.broken += 1
        return AwsError("DoubleBroke", traceback.format_exc())

    def operate(self, service: Service | None, operation: str, body: bytes, fault: dict | None) -> Answer:
        if service is None or not {operation} & {*service.locked, *service.unlocked}:
            name = self.headers.get("x-amz-target", "")
            raise AwsError("UnknownOperationException", f"the double has no operation {name}")
        signing_name = service.signing_name
        credential, region = authenticate(self.world, self.command, self.path, self.headers, body, signing_name)
        named = {operation, f"{signing_name}:{operation}", f"{operation}@{region}"}
        if named & set(credential.denied):
            raise access_denied(credential, signing_name, operation)
        try:
            parameters = json.loads(body)
        except ValueError:
            raise AwsError("SerializationException", "the body is not JSON") from None
        if type(parameters) is not dict:
            raise AwsError("SerializationException", "the body is not an object")
        call = Call(self.world, signing_name, operation, parameters, credential, region, fault)
        if operation in service.unlocked:
            return json_answer(service.unlocked[operation](call))
        with self.world.lock:
            answered = service.locked[operation](call)
        return json_answer(answered)

    def broken_off(
        self, action: dict, name: str, answered: Answer | None, told: Callable[[AwsError], Answer]
    ) -> None:
        """Answers as a fault says; `answered` is what the operation would have, if it was carried out."""
        if "error" in action:
            error = action["error"]
            self.world.count_error(name, error["code"])
            fault = AwsError(error["code"], error.get("message", ""), error.get("status"))
            self.send(told(fault))
        elif "hang_seconds" in action:
            time.sleep(action["hang_seconds"])
            if answered is None:
                self.reset()
            else:
                self.send(answered)
        elif "garbage" in action:
            self.send(Answer(200, b"<html>no JSON at all", "text/html"))
        elif "truncate" in action:
            half = answered.body[: len(answered.body) // 2]
            self.send(replace(answered, body=half), claimed=len(answered.body))
            self.close_connection = True
        else:
            self.reset()

    def reset(self) -> None:
        """Closes the connection with a TCP reset: no time to linger over what is unsent."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def reply(self, status: int, answer: dict | list) -> None:
        """To a control."""
        self.send(Answer(status, json.dumps(answer).encode(), "application/json"))

    def send(self, answer: Answer, claimed: int | None = None) -> None:
        self.send_response_only(answer.status)
        self.send_header("Date", formatdate(self.world.clock.now_ms() / 1000, usegmt=True))
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body) if claimed is None else claimed))
        self.send_header("x-amzn-RequestId", answer.request_id or str(uuid.uuid4()))
        self._headers_buffer.append(b"\r\n" + answer.body)  # one write, one packet where it fits
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


def json_answer(answered: dict) -> Answer:
    return Answer(200, json.dumps(answered).encode(), AMZ_JSON)


def json_error(error: AwsError) -> Answer:
    body = {"__type": error.code, "message": error.message, **error.members}
    return Answer(error.status, json.dumps(body).encode(), AMZ_JSON, code=error.code)


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
