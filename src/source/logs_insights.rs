//! Asks CloudWatch Logs Insights over the log groups that a trail delivers to.
//!
//! A trail's log events carry the time of delivery as their `@timestamp`, so late calls lie in later windows and no
//! window changes once it has settled. AWS's "Sending events to CloudWatch Logs" says so of the console's time column.

mod rows;
mod text;

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::Builder;
use aws_sdk_cloudwatchlogs::operation::get_query_results::GetQueryResultsOutput;
use aws_sdk_cloudwatchlogs::types::{QueryStatistics, QueryStatus};

pub use self::text::Form;
use super::query::{Answer, Ask, End, Engine, Leaf, Look, MOST_CALLERS, Query, Started, numbers};
use crate::aws::{self, Observer, Quota};
use crate::batch::Scanned;
use crate::source::{Reason, SourceError};
use crate::tls::TlsVersion;

/// The most rows that AWS gives of one query, page by page (API reference of StartQuery).
pub const MOST_ROWS: usize = 100_000;
/// The most rows that AWS gives in one page (API reference of GetQueryResults).
pub const PAGE: usize = 10_000;
/// The rows that AWS gives where it does not heed the limit that was asked for: so many are never taken for all.
const DEFAULT_ROWS: usize = 10_000;

/// The settings of one `logs_insights` source, beside those that all query sources share.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The log groups, by name or ARN.
    pub log_groups: Vec<String>,
    /// How records are read.
    pub form: Form,
    /// Whether only outdated calls are asked for.
    pub outdated_only: bool,
    /// Calls below are outdated.
    pub minimum_version: TlsVersion,
    /// The grid of time.
    pub bucket: Duration,
    /// The most rows of an answer.
    pub most_rows: usize,
    /// The most rows of a page.
    pub page: usize,
}

impl Settings {
    /// The most rows of an answer that names callers.
    fn most_callers(&self) -> usize {
        MOST_CALLERS.min(self.most_rows)
    }

    /// The most rows of a leaf's answer.
    fn most_rows(&self, leaf: &Leaf) -> usize {
        match leaf.ask {
            Ask::Callers { .. } => self.most_callers(),
            _ => self.most_rows,
        }
    }
}

/// CloudWatch Logs Insights.
#[derive(Debug)]
pub struct LogsInsights {
    client: Client,
    observer: Observer,
    quota: Arc<Quota>,
    settings: Settings,
}

impl LogsInsights {
    /// The engine over an AWS configuration. `quota` is that of its account and Region.
    pub fn new(config: &SdkConfig, settings: Settings, quota: Arc<Quota>) -> Self {
        let observer = Observer::default();
        let config = Builder::from(config).interceptor(observer.clone()).build();
        Self {
            client: Client::from_conf(config),
            observer,
            quota,
            settings,
        }
    }

    /// Reads all pages of a query that is complete, of which `first` is the first.
    async fn answer(
        &self,
        id: &str,
        leaf: &Leaf,
        first: GetQueryResultsOutput,
    ) -> Result<Answer, SourceError> {
        let mut rows = first.results.unwrap_or_default();
        let mut next = first.next_token;
        while let Some(token) = next.filter(|token| !token.is_empty()) {
            self.quota.poll().await;
            let page = self.page(id, Some(token)).await?;
            if page.status != Some(QueryStatus::Complete) {
                let message = "a page of a complete query is of one that is not";
                return Err(SourceError::new(Reason::BadAnswer, message));
            }
            let more = page.results.unwrap_or_default();
            if more.is_empty() && page.next_token.is_some() || rows.len() > MOST_ROWS {
                return Err(SourceError::new(Reason::BadAnswer, "the pages have no end"));
            }
            rows.extend(more);
            next = page.next_token;
        }
        Ok(Answer {
            truncated: rows.len() >= self.settings.most_rows || rows.len() == DEFAULT_ROWS,
            rows: rows::read(&rows, leaf)?,
        })
    }

    async fn page(
        &self,
        id: &str,
        token: Option<String>,
    ) -> Result<GetQueryResultsOutput, SourceError> {
        let request = self.client.get_query_results().query_id(id);
        let request = request
            .max_items(i32::try_from(self.settings.page).unwrap_or(i32::MAX))
            .set_next_token(token);
        let failed = |error| aws::failed(&self.observer, "GetQueryResults", error);
        request.send().await.map_err(failed)
    }
}

impl Engine for LogsInsights {
    const PARTS_SAVE: bool = true;

    fn identity(&self) -> String {
        format!("{:?}", self.settings)
    }

    fn subject(&self) -> String {
        format!("{:?}", self.settings.log_groups)
    }

    async fn greet(&self) -> Result<(), SourceError> {
        let request = self.client.describe_log_groups().limit(1);
        aws::greeted(&self.observer, "DescribeLogGroups", request.send()).await
    }

    /// The API has no token.
    async fn start(&self, query: &Query, _: &str) -> Result<Started, SourceError> {
        let leaf = &query.leaf;
        let request = self
            .client
            .start_query()
            .set_log_group_identifiers(Some(self.settings.log_groups.clone()))
            .query_string(text::query(leaf, &self.settings))
            // Both ends are inclusive seconds. Whether the last second counts whole is not documented (AWS's
            // team said in 2022 that it does not): one more is asked for, and the query cuts to the millisecond.
            .start_time(leaf.window.from.secs())
            .end_time(leaf.window.to.secs())
            .limit(i32::try_from(self.settings.most_rows(leaf)).unwrap_or(i32::MAX))
            .customize()
            .config_override(aws_sdk_cloudwatchlogs::Config::builder().retry_config(aws::once()));
        let started = request.send().await.map_err(|error| {
            let gone = error
                .as_service_error()
                .is_some_and(|error| holds_nothing(error.meta().message().unwrap_or_default()));
            (gone, aws::failed(&self.observer, "StartQuery", error))
        });
        match started {
            Ok(answer) => match answer.query_id {
                Some(id) if !id.is_empty() => Ok(Started::Query(id)),
                _ => Err(SourceError::new(
                    Reason::BadAnswer,
                    "StartQuery told no query id",
                )),
            },
            Err((true, _)) => Ok(Started::Nothing),
            Err((false, error)) => Err(error),
        }
    }

    async fn look(&self, id: &str, query: &Query) -> Result<Look, SourceError> {
        let first = match self.page(id, None).await {
            // The query is older than AWS keeps results, or was never known.
            Err(error) if matches!(error.reason, Reason::NotFound | Reason::Rejected) => {
                return Ok(Look::unknown(error));
            }
            answer => answer?,
        };
        let scanned = first
            .statistics
            .as_ref()
            .map_or_else(Scanned::default, scanned);
        let end = match first.status {
            // Rows of a query that still runs are partial.
            Some(QueryStatus::Complete) => {
                End::Complete(self.answer(id, &query.leaf, first).await?)
            }
            Some(QueryStatus::Cancelled) => End::Stopped,
            Some(QueryStatus::Failed) => End::Failed(SourceError::new(
                Reason::Rejected,
                "the query failed at AWS",
            )),
            Some(QueryStatus::Timeout) => End::TooMuch(SourceError::new(
                Reason::Timeout,
                "the query took AWS too long",
            )),
            _ => return Ok(Look::Running),
        };
        Ok(Look::ended(end, scanned))
    }

    async fn stop(&self, id: &str) -> Result<(), SourceError> {
        let request = self.client.stop_query().query_id(id);
        let failed = |error| aws::failed(&self.observer, "StopQuery", error);
        request.send().await.map(drop).map_err(failed)
    }

    fn observer(&self) -> &Observer {
        &self.observer
    }
}

fn scanned(statistics: &QueryStatistics) -> Scanned {
    Scanned::billed(
        numbers::whole(statistics.bytes_scanned),
        numbers::whole(statistics.records_scanned),
    )
}

/// StartQuery's refusal of a time that lies before the log groups were made or behind their retention. AWS does
/// not document it; users quote it as a MalformedQueryException with this text.
fn holds_nothing(message: &str) -> bool {
    message.contains("before the log groups creation time")
        || message.contains("exceeds the log groups log retention")
}
