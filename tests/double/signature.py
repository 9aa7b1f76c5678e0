"""Signature Version 4 of a request, verified with the SDK's own code, and whose request it is."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from errors import AwsError

if TYPE_CHECKING:
    from world import Credential, World

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, *"
    r"SignedHeaders=([^,]+), *Signature=([0-9a-f]{64})"
)
DATE_FORMAT = "%Y%m%dT%H%M%SZ"
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
    "Key and signing method. Consult the service documentation for details."
)


class _Signer(SigV4Auth):
    """Signs exactly the headers that the client says it signed."""

    def headers_to_sign(self, request: AWSRequest):
        return request.headers


def authenticate(world: World, method: str, path: str, headers, body: bytes, service: str) -> tuple[Credential, str]:
    """Whose request this is and for which Region; raises what AWS answers where it is nobody's."""
    match = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if match is None:
        raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
    access_key, day, region, signed_service, names, signature = match.groups()
    with world.lock:
        world.signed_with.add(access_key)
    credential = world.credentials.get(access_key)
    token = headers.get("x-amz-security-token")
    if credential is None or (credential.session_token or None) != token:
        raise AwsError("UnrecognizedClientException", "The security token included in the request is invalid.")
    date = headers.get("x-amz-date", "")
    if signed_service != service or date[:8] != day:
        raise AwsError("InvalidSignatureException", f"Credential should be scoped to correct service: '{service}'.")
    if not hmac.compare_digest(signature, _expected(credential, region, service, method, path, headers, names, body)):
        raise AwsError("InvalidSignatureException", MISMATCH)
    _check_time(world, date)
    if credential.expired(world.clock):
        raise AwsError("ExpiredTokenException", "The security token included in the request is expired")
    return credential, region


def _expected(
    credential: Credential, region: str, service: str, method: str, path: str, headers, names: str, body: bytes
) -> str:
    signed = names.split(";")
    if "host" not in signed or "x-amz-date" not in signed:
        raise AwsError("IncompleteSignatureException", "host and x-amz-date must be signed")
    request = AWSRequest(
        method, f"http://{headers['host']}{path}", {name: headers.get(name, "") for name in signed}, data=body
    )
    claimed = headers.get("x-amz-content-sha256")
    if claimed is not None and claimed != hashlib.sha256(body).hexdigest():
        raise AwsError("InvalidSignatureException", MISMATCH)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = _Signer(Credentials(credential.access_key, credential.secret), service, region)
    return signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)


def _check_time(world: World, date: str) -> None:
    """Too old and too new are told apart; a client may correct its clock by the Date header of the answer."""
    signed = datetime.strptime(date, DATE_FORMAT).replace(tzinfo=timezone.utc)
    now = datetime.fromtimestamp(world.clock.now_ms() / 1000, timezone.utc)
    tolerance = timedelta(seconds=world.switches["signature_tolerance_seconds"])
    minutes = tolerance.total_seconds() / 60
    if signed < now - tolerance:
        limit = f"{now - tolerance:{DATE_FORMAT}} ({now:{DATE_FORMAT}} - {minutes:g} min.)"
        raise AwsError("InvalidSignatureException", f"Signature expired: {date} is now earlier than {limit}")
    if signed > now + tolerance:
        limit = f"{now + tolerance:{DATE_FORMAT}} ({now:{DATE_FORMAT}} + {minutes:g} min.)"
        raise AwsError("InvalidSignatureException", f"Signature not yet current: {date} is still later than {limit}")
