//! AWS's side of the sources: credentials and clients' settings, the quotas that workers share, and what AWS's
//! errors mean.

mod errors;
mod observer;
mod quota;

use std::error::Error;
use std::time::Duration;

pub use aws_config::SdkConfig;
use aws_config::{BehaviorVersion, Region};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use crate::source::{Reason, SourceError};

pub(crate) use self::errors::{failed, failed_because};
pub use self::observer::Observer;
pub use self::quota::{Quota, Quotas};

/// One attempt may take this long; the SDK retries as its standard mode does.
const ATTEMPT: Duration = Duration::from_secs(20);
/// All attempts at one request together.
const OPERATION: Duration = Duration::from_secs(60);

/// How AWS is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The Region; by default that of the environment, the profile or the instance.
    pub region: Option<String>,
    /// A profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Another endpoint than AWS's own.
    pub endpoint_url: Option<String>,
    /// FIPS endpoints.
    pub use_fips: bool,
    /// Dual-stack endpoints.
    pub use_dual_stack: bool,
}

impl Access {
    /// What every client is made of. Finds the Region and where credentials come from; nobody is asked for
    /// credentials before the first request.
    pub async fn load(&self) -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(OPERATION);
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .timeout_config(timeouts.build())
            .use_fips(self.use_fips)
            .use_dual_stack(self.use_dual_stack);
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        loader.load().await
    }
}

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
