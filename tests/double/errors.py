"""An answer of AWS that is an error."""

# HTTP statuses that are not 400 (BC-logs, and the pages of common errors).
STATUSES = {
    "ServiceUnavailableException": 500,
    "ServiceUnavailable": 503,
    "InternalFailure": 500,
    "RequestTimeoutException": 408,
    "UnknownOperationException": 404,
    "DoubleBroke": 500,
}


class AwsError(Exception):
    def __init__(self, code: str, message: str, status: int | None = None, **members) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.status = status or STATUSES.get(code, 400)
        self.members = members  # of the error's body beside its type and message
