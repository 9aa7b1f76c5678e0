//! Watches the requests of a client: how many of each operation, which failed and why, and AWS's clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;

use crate::source::{Reason, Requests};
use crate::time::Timestamp;

/// What was seen; clones share it. It is an interceptor of the clients that it watches.
#[derive(Clone, Debug, Default)]
pub struct Observer(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    sent: BTreeMap<String, u64>,
    failed: BTreeMap<(String, Reason), u64>,
    /// The host's clock, and when it was told.
    host: Option<(Timestamp, Instant)>,
    /// How far the host's clock was ahead of AWS's at the newest answer, in seconds.
    ahead: Option<i64>,
}

/// `Date` has whole seconds and takes its time to come: clocks this close are not told apart.
const GRAIN: u64 = 2;

impl Observer {
    /// Tells the host's clock, to which AWS's is compared from now on. If it jumped since it was told last, no
    /// earlier comparison holds.
    pub fn tell(&self, now: Timestamp) {
        let mut seen = self.seen();
        let expected = seen.host.map(|(told, at)| told.plus(at.elapsed()));
        let jumped = |expected: Timestamp| expected.secs().abs_diff(now.secs()) > GRAIN;
        if expected.is_some_and(jumped) {
            seen.ahead = None;
        }
        seen.host = Some((now, Instant::now()));
    }

    /// How far the host's clock is ahead of AWS's in seconds, by the newest answer; `None` before the first, and
    /// once the host's clock has jumped.
    pub fn ahead(&self) -> Option<i64> {
        self.seen().ahead
    }

    /// The earlier of the host's clock, which shows `now`, and AWS's.
    pub fn trusted(&self, now: Timestamp) -> Timestamp {
        let ahead = u64::try_from(self.ahead().unwrap_or_default()).unwrap_or(0);
        now.minus(Duration::from_secs(ahead))
    }

    /// Forgets how the clocks compare until the next answer.
    pub(crate) fn forget_clock(&self) {
        self.seen().ahead = None;
    }

    /// A request of `operation` failed for good.
    pub(crate) fn failed(&self, operation: &str, reason: Reason) {
        let key = (operation.to_owned(), reason);
        *self.seen().failed.entry(key).or_default() += 1;
    }

    /// What was seen since this was asked last.
    pub fn take(&self) -> Requests {
        let mut seen = self.seen();
        Requests {
            sent: std::mem::take(&mut seen.sent),
            failed: std::mem::take(&mut seen.failed),
            ahead: seen.ahead,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Observer {
    fn name(&self) -> &'static str {
        "Observer"
    }

    /// Each attempt is a request, as AWS's quotas count them.
    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(operation) = config.load::<Metadata>() {
            let mut seen = self.seen();
            *seen.sent.entry(operation.name().to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
        let mut seen = self.seen();
        if let (Some(date), Some((told, at))) = (date, seen.host) {
            let ahead = told.plus(at.elapsed()).secs().saturating_sub(date.secs());
            seen.ahead = Some(if ahead.unsigned_abs() <= GRAIN {
                0
            } else {
                ahead
            });
        }
        Ok(())
    }
}
