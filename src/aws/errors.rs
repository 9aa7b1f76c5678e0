//! Sorts AWS's errors, once, into the closed set of reasons: by their codes, as the models carry no hint which
//! may be retried.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::Observer;
use crate::source::{Reason, SourceError};

/// What a failed request means; it is counted for its operation.
pub(crate) fn failed<E>(
    observer: &Observer,
    operation: &'static str,
    error: SdkError<E, HttpResponse>,
) -> SourceError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let reason = reason(&error);
    failed_because(observer, operation, error, reason)
}

/// The same where the operation knows the reason better.
pub(crate) fn failed_because<E>(
    observer: &Observer,
    operation: &'static str,
    error: SdkError<E, HttpResponse>,
    reason: Reason,
) -> SourceError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    observer.failed(operation, reason);
    match error.code() {
        Some(code) => {
            let told = error.message().unwrap_or("nothing more");
            SourceError::new(reason, format!("{operation} was answered {code}: {told}"))
        }
        None => SourceError::because(reason, format!("{operation} failed"), error),
    }
}

fn reason<E>(error: &SdkError<E, HttpResponse>) -> Reason
where
    E: Error + ProvideErrorMetadata + 'static,
{
    match error {
        SdkError::TimeoutError(_) => Reason::Timeout,
        SdkError::ServiceError(context) => of_code(context.err().code().unwrap_or_default())
            .unwrap_or_else(|| of_status(context.raw().status().as_u16())),
        SdkError::ResponseError(_) => Reason::BadAnswer,
        // Credentials are looked for on the way to the first request.
        _ if caused_by::<CredentialsError>(error) => Reason::Credentials,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Reason::Timeout,
        SdkError::DispatchFailure(_) => Reason::Connection,
        _ => Reason::Internal,
    }
}

fn caused_by<C: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<C>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Codes of the APIs and those that all services share (AWS: "Common Errors").
fn of_code(code: &str) -> Option<Reason> {
    Some(match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "SlowDown" => Reason::Throttled,
        // StartQuery's "Account maximum query concurrency limit of [N] reached".
        "LimitExceededException" => Reason::ConcurrencyLimit,
        // The same of CloudTrail Lake.
        "MaxConcurrentQueriesException" => Reason::ConcurrencyLimit,
        "RequestTimeout" | "RequestTimeoutException" => Reason::Timeout,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "OptInRequired"
        | "NotAuthorized" => Reason::AccessDenied,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => Reason::Credentials,
        "ResourceNotFoundException"
        | "EventDataStoreNotFoundException"
        | "QueryIdNotFoundException" => Reason::NotFound,
        "MalformedQueryException"
        | "InvalidParameterException"
        | "InvalidOperationException"
        | "ValidationError"
        | "ValidationException"
        | "UnknownOperationException"
        | "SerializationException" => Reason::Rejected,
        "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "InternalFailure"
        | "InternalServerException"
        | "InternalServerError" => Reason::Connection,
        _ => return None,
    })
}

/// For codes that this build does not know.
fn of_status(status: u16) -> Reason {
    match status {
        401 => Reason::Credentials,
        403 => Reason::AccessDenied,
        404 => Reason::NotFound,
        408 => Reason::Timeout,
        429 => Reason::Throttled,
        400..=499 => Reason::Rejected,
        500..=599 => Reason::Connection,
        _ => Reason::BadAnswer,
    }
}
