//! AWS's side of the sources: credentials and clients' settings, the quotas that workers share, and what AWS's
//! errors mean.

mod access;
mod errors;
mod observer;
mod quota;

use std::error::Error;

pub use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;

use crate::source::{Reason, SourceError};

pub use self::access::{Access, Place, Role};
pub(crate) use self::errors::{failed, failed_because};
pub use self::observer::Observer;
pub use self::quota::{Quota, Quotas};

/// Sends a request that asks for as little as possible, so that AWS's clock is known. Any answer tells it, a refusal
/// too: the policy need not allow the operation.
pub(crate) async fn greeted<T, E>(
    observer: &Observer,
    operation: &'static str,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<(), SourceError>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    observer.forget_clock();
    match request.await {
        _ if observer.ahead().is_some() => Ok(()),
        Ok(_) => Err(SourceError::new(
            Reason::BadAnswer,
            "an answer of AWS has no Date",
        )),
        Err(error) => Err(failed(observer, operation, error)),
    }
}

/// For requests that start something which AWS bills: it must not be started twice because an answer was lost.
pub(crate) fn once() -> RetryConfig {
    RetryConfig::disabled()
}
