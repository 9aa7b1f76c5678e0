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

/// How an account is reached, and a Region.
type Place = (String, String);

/// The quotas by account and Region.
#[derive(Debug, Default)]
pub struct Quotas(Mutex<HashMap<Place, Arc<Quota>>>);

impl Quotas {
    /// The quota of an account and Region. The account is told apart by how it is reached.
    pub fn of(&self, account: &str, region: &str, make: fn() -> Quota) -> Arc<Quota> {
        let mut quotas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quota = quotas.entry((account.to_owned(), region.to_owned()));
        Arc::clone(quota.or_insert_with(|| Arc::new(make())))
    }
}
