"""STS: requests of its query protocol are checked here, answered by moto, and what moto gave out is remembered."""

from __future__ import annotations

import functools
import re
import time
import uuid
from datetime import datetime, timezone
from urllib.parse import parse_qsl
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import botocore.loaders

import roles
from answers import Answer
from errors import AwsError
from signature import authenticate
from world import World

FORM = "application/x-www-form-urlencoded"
XML = "text/xml"
BY_TOKEN = "AssumeRoleWithWebIdentity"  # whose request nobody signs
NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
# What `authenticate` raises, in the words of the query protocol.
CODES = {
    "MissingAuthenticationTokenException": ("MissingAuthenticationToken", 403),
    "UnrecognizedClientException": ("InvalidClientTokenId", 403),
    "InvalidSignatureException": ("SignatureDoesNotMatch", 403),
    "IncompleteSignatureException": ("IncompleteSignature", 400),
    "ExpiredTokenException": ("ExpiredToken", 403),
}
# Headers of one connection; moto has another.
HOP = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect"}


def is_query(headers, body: bytes) -> bool:
    if not headers.get("content-type", "").startswith(FORM):
        return False
    signed = "/sts/aws4_request" in headers.get("authorization", "")
    return signed or "authorization" not in headers and operation(body) == BY_TOKEN


def operation(body: bytes) -> str:
    return form(body).get("Action", "")


def form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def answer(world: World, method: str, path: str, headers, body: bytes) -> Answer:
    """Moto's answer to a request that AWS would let through."""
    if operation(body) == BY_TOKEN:
        parameters = form(body)
        check_members(BY_TOKEN, parameters)
        with world.lock:
            role = roles.assumable_by_token(world, parameters)
        given = forward(world, path, headers, body, role.account)
        return given if given.status != 200 else remember(world, role, "", "", parameters, given)
    try:
        credential, region = authenticate(world, method, path, headers, body, "sts")
    except AwsError as error:
        code, status = CODES[error.code]
        raise AwsError(code, error.message, status) from None
    parameters = form(body)
    if parameters.get("Action") == "GetCallerIdentity":  # which needs no permission
        return forward(world, path, headers, body, credential.account)
    if parameters.get("Action") != "AssumeRole":
        raise AwsError("InvalidAction", f"Could not find operation {parameters.get('Action')}")
    check_members("AssumeRole", parameters)
    with world.lock:
        role = roles.assumable(world, credential, parameters)
    given = forward(world, path, headers, body, credential.account)
    if given.status != 200:
        return given
    return remember(world, role, credential.access_key, region, parameters, given)


def forward(world: World, path: str, headers, body: bytes, account: str) -> Answer:
    """Moto holds no accounts, so it is told the caller's."""
    passed = {name: value for name, value in headers.items() if name.lower() not in HOP}
    status, kind, given = world.sts.post(path, passed | {"X-Moto-Account-Id": account}, body)
    return Answer(status, given, kind, text(given, "RequestId"), None if status == 200 else text(given, "Code"))


def remember(
    world: World, role: roles.Role, caller: str, region: str, parameters: dict[str, str], given: Answer
) -> Answer:
    """Makes the new session known to the double, and shortens it where the role says so."""
    expiration = datetime.fromisoformat(text(given.body, "Expiration"))
    if role.expires_in_seconds is not None:
        soon = datetime.fromtimestamp(time.time() + role.expires_in_seconds, timezone.utc)
        expiration = min(expiration, soon)
        said = f"{expiration:%Y-%m-%dT%H:%M:%S}.{expiration.microsecond // 1000:03}Z"
        given.body = re.sub(rb"(<Expiration>)[^<]*", rb"\g<1>" + said.encode(), given.body)
    session = roles.RoleSession(
        access_key=text(given.body, "AccessKeyId"),
        secret=text(given.body, "SecretAccessKey"),
        session_token=text(given.body, "SessionToken"),
        account=role.account,
        expires_ms=int(expiration.timestamp() * 1000),
        denied=role.denied,
        monitors=role.monitors,
        delegates_for=role.delegates_for,
        assumed_arn=text(given.body, "Arn"),
        role=role.arn,
        caller=caller,
        region=region,
        external_id=parameters.get("ExternalId"),
    )
    with world.lock:
        world.credentials[session.access_key] = session
    return given


def text(body: bytes, name: str) -> str | None:
    """Of the first element of that name."""
    return ElementTree.fromstring(body).findtext(f".//{{*}}{name}")


@functools.cache
def shapes() -> dict[str, dict]:
    return botocore.loaders.create_loader().load_service_model("sts", "service-2")["shapes"]


def check_members(action: str, parameters: dict[str, str]) -> None:
    """An action's strings and numbers against STS's own model: moto takes nearly all."""
    request = shapes()[f"{action}Request"]
    for name, member in request["members"].items():
        value = parameters.get(name)
        shape = shapes()[member["shape"]]
        if value is None:
            constraint = "Member must not be null" if name in request["required"] else None
        elif shape["type"] == "integer":
            constraint = number_constraint(shape, value)
        else:
            constraint = string_constraint(shape, value)
        if constraint:
            told = "null" if value is None else f"'{value}'"
            where = name[0].lower() + name[1:]
            said = f"1 validation error detected: Value {told} at '{where}' failed to satisfy constraint: {constraint}"
            raise AwsError("ValidationError", said)


def number_constraint(shape: dict, value: str) -> str | None:
    if not re.fullmatch(r"-?\d+", value):
        return "Member must be a number"
    if int(value) < shape["min"]:
        return f"Member must have value greater than or equal to {shape['min']}"
    if int(value) > shape["max"]:
        return f"Member must have value less than or equal to {shape['max']}"
    return None


def string_constraint(shape: dict, value: str) -> str | None:
    """None if there is nothing wrong."""
    if len(value) < shape.get("min", 0):
        return f"Member must have length greater than or equal to {shape['min']}"
    if len(value) > shape.get("max", len(value)):
        return f"Member must have length less than or equal to {shape['max']}"
    if "pattern" in shape and not re.fullmatch(shape["pattern"], value, re.ASCII):
        return f"Member must satisfy regular expression pattern: {shape['pattern']}"
    return None


def error_answer(error: AwsError) -> Answer:
    request_id = str(uuid.uuid4())
    blame = "Sender" if error.status < 500 else "Receiver"
    body = (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>{blame}</Type><Code>{escape(error.code)}</Code>'
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return Answer(error.status, body.encode(), XML, request_id, error.code)
