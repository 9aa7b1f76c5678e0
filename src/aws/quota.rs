//! AWS's quotas of requests and running queries hold per account and Region: the workers of one share them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The quotas of one account and Region, as far as this process uses them.
#[derive(Debug)]
pub struct Quota {
    starts: DefaultDirectRateLimiter,
    polls: DefaultDirectRateLimiter,
    running: Arc<Semaphore>,
}

impl Quota {
    /// CloudWatch Logs Insights: 10 StartQuery and 10 GetQueryResults a second, 100 running queries (AWS:
    /// "CloudWatch Logs quotas"). They are the account's, dashboards and people included, so a part is left to them.
    pub fn logs_insights() -> Self {
        Self::new(8, 8, 50)
    }

    /// CloudTrail Lake: 3 StartQuery, 10 DescribeQuery and 10 GetQueryResults a second, 10 queued or running
    /// queries (AWS: "AWS CloudTrail endpoints and quotas", "Quotas in AWS CloudTrail").
    pub fn lake() -> Self {
        Self::new(1, 5, 5)
    }

    /// Athena, where its quotas are lowest: 20 StartQueryExecution, 100 GetQueryExecution and 100 GetQueryResults
    /// a second, 20 active queries (AWS: "Amazon Athena endpoints and quotas").
    pub fn athena() -> Self {
        Self::new(5, 25, 10)
    }

    /// What the event history's source takes of LookupEvents' 2 requests a second (API reference).
    pub const LOOKUPS: u32 = 1;

    /// The event history.
    pub fn event_history() -> Self {
        Self::new(1, Self::LOOKUPS, 1)
    }

    /// At most so many starts and polls in any second, evenly spread, and so many running queries.
    pub fn new(starts: u32, polls: u32, running: usize) -> Self {
        let limiter = |rate: u32| {
            let spread = governor::Quota::with_period(Duration::from_secs(1) / rate);
            RateLimiter::direct(spread.expect("a period above zero"))
        };
        Self {
            starts: limiter(starts),
            polls: limiter(polls),
            running: Arc::new(Semaphore::new(running)),
        }
    }

    /// Waits until a query may be started, and holds its place among the running ones.
    pub(crate) async fn start(&self) -> OwnedSemaphorePermit {
        let place = self.running().await;
        self.starts.until_ready().await;
        place
    }

    /// A place among the running queries, for one that was started by an earlier process.
    pub(crate) async fn running(&self) -> OwnedSemaphorePermit {
        let running = Arc::clone(&self.running);
        let place = running.acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// Waits until a query may be asked for its results.
    pub(crate) async fn poll(&self) {
        self.polls.until_ready().await;
    }
}

/// A service, how an account is reached, and a Region.
type Place = (&'static str, String, String);

/// The quotas by service, account and Region.
#[derive(Debug, Default)]
pub struct Quotas(Mutex<HashMap<Place, Arc<Quota>>>);

impl Quotas {
    /// The quota of a service, an account and a Region. The account is told apart by how it is reached.
    pub fn of(
        &self,
        service: &'static str,
        account: &str,
        region: &str,
        make: fn() -> Quota,
    ) -> Arc<Quota> {
        let mut quotas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quota = quotas.entry((service, account.to_owned(), region.to_owned()));
        Arc::clone(quota.or_insert_with(|| Arc::new(make())))
    }
}
