//! Asks CloudTrail Lake over an event data store.
//!
//! Lake knows calls by the time at which they were made, so a late call lies in a window that was counted before:
//! windows are counted again (`recount_after`), once a count of records by bucket has told which differ.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::config::Builder;
use aws_sdk_cloudtrail::operation::describe_query::DescribeQueryOutput;
use aws_sdk_cloudtrail::operation::get_query_results::GetQueryResultsOutput;
use aws_sdk_cloudtrail::types::{QueryStatisticsForDescribeQuery, QueryStatus};

use super::query::{Answer, End, Engine, Leaf, Look, Query, Started};
use super::sql::{self, Reader, Table};
pub use super::sql::{MOST_ROWS, PAGE};
use crate::aws::{self, Observer, Quota};
use crate::batch::Scanned;
use crate::source::{Reason, SourceError};

/// Where a store has the key exchange. AWS's page of Lake's schema names it in neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// In `tlsDetails`; where that has none, key exchanges are `unreported`.
    #[default]
    Column,
    /// In the text of the whole event, which costs more bytes.
    EventJson,
}

/// The settings of one `lake` source, beside those that all query sources share.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The event data store: its id, or an ARN that ends with it.
    pub event_data_store: String,
    /// The account that owns the store, for a delegated administrator.
    pub owner_account: Option<String>,
    /// Where the key exchange is.
    pub key_exchange: KeyExchange,
    /// Whether records of one event id are one call.
    pub deduplicate: bool,
    /// The grid of time.
    pub bucket: Duration,
    /// The most rows of an answer.
    pub most_rows: usize,
    /// The most rows of a page.
    pub page: usize,
}

impl Settings {
    /// The id of the store, without the rest of its ARN.
    pub fn store_id(&self) -> &str {
        let store = &self.event_data_store;
        store.rsplit('/').next().unwrap_or(store)
    }
}

/// CloudTrail Lake.
#[derive(Debug)]
pub struct Lake {
    client: Client,
    observer: Observer,
    quota: Arc<Quota>,
    settings: Settings,
}

impl Lake {
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

    fn statement(&self, query: &Query) -> String {
        let leaf = &query.leaf;
        let key_exchange = match self.settings.key_exchange {
            KeyExchange::Column => "tlsDetails.keyExchange",
            KeyExchange::EventJson => "json_extract_scalar(eventJson, '$.tlsDetails.keyExchange')",
        };
        let table = Table {
            // The id as it is: Lake takes it without quotes, and the configuration nothing but ids.
            name: self.settings.store_id(),
            seconds: "CAST(floor(to_unixtime(eventTime)) AS bigint)",
            key_exchange: (!query.plain).then_some(key_exchange),
            deduplicate: self.settings.deduplicate,
            bucket: self.settings.bucket,
            most_rows: self.settings.most_rows,
        };
        let time = sql::within(leaf, sql::timestamp);
        let conditions = format!("{time}\n  AND {}", sql::CALLS_OF_LAKE);
        sql::statement(leaf, &table, &conditions)
    }

    async fn describe(&self, id: &str) -> Result<DescribeQueryOutput, SourceError> {
        let request = self.client.describe_query().query_id(id);
        let request =
            request.set_event_data_store_owner_account_id(self.settings.owner_account.clone());
        let failed = |error| aws::failed(&self.observer, "DescribeQuery", error);
        request.send().await.map_err(failed)
    }

    /// Reads all pages of a query that has finished.
    async fn answer(&self, id: &str, leaf: &Leaf) -> Result<Answer, SourceError> {
        let bad = |message: &str| SourceError::new(Reason::BadAnswer, message);
        let mut reader = Reader::new(leaf);
        let mut next = None;
        let mut total = None;
        loop {
            self.quota.poll().await;
            let page = self.page(id, next).await?;
            if page.query_status != Some(QueryStatus::Finished) {
                return Err(bad("a page of a finished query is of one that is not"));
            }
            let told = page
                .query_statistics()
                .and_then(|it| it.total_results_count());
            total = told.and_then(|rows| usize::try_from(rows).ok()).or(total);
            let rows = page.query_result_rows();
            // Whether Lake keeps the case of a column's name is not documented.
            for row in rows {
                reader.read(|name| {
                    let mut cells = row.iter().flatten();
                    let cell = cells.find(|(column, _)| column.eq_ignore_ascii_case(name))?;
                    Some(cell.1.as_str())
                })?;
            }
            let truncated = reader.len().max(total.unwrap_or(0)) >= self.settings.most_rows;
            next = page
                .next_token()
                .filter(|token| !token.is_empty())
                .map(str::to_owned);
            if truncated || next.is_none() {
                if !truncated && total.is_some_and(|total| total != reader.len()) {
                    return Err(bad("the pages do not have as many rows as AWS tells"));
                }
                return Ok(Answer {
                    rows: reader.rows(),
                    truncated,
                });
            }
            if rows.is_empty() {
                return Err(bad("the pages have no end"));
            }
        }
    }

    async fn page(
        &self,
        id: &str,
        token: Option<String>,
    ) -> Result<GetQueryResultsOutput, SourceError> {
        let request = self.client.get_query_results().query_id(id);
        let request = request
            .max_query_results(i32::try_from(self.settings.page).unwrap_or(i32::MAX))
            .set_event_data_store_owner_account_id(self.settings.owner_account.clone())
            .set_next_token(token);
        let failed = |error| aws::failed(&self.observer, "GetQueryResults", error);
        request.send().await.map_err(failed)
    }
}

impl Engine for Lake {
    const PARTS_SAVE: bool = true;

    fn identity(&self) -> String {
        format!("{:?}", self.settings)
    }

    fn subject(&self) -> String {
        self.settings.store_id().to_owned()
    }

    async fn greet(&self) -> Result<(), SourceError> {
        let store = self.client.get_event_data_store();
        let request = store.event_data_store(&self.settings.event_data_store);
        aws::greeted(&self.observer, "GetEventDataStore", request.send()).await
    }

    /// The API has no token.
    async fn start(&self, query: &Query, _: &str) -> Result<Started, SourceError> {
        let request = self
            .client
            .start_query()
            .query_statement(self.statement(query))
            .set_event_data_store_owner_account_id(self.settings.owner_account.clone())
            .customize()
            .config_override(aws_sdk_cloudtrail::Config::builder().retry_config(aws::once()));
        let error = match request.send().await {
            Ok(answer) => match answer.query_id {
                Some(id) if !id.is_empty() => return Ok(Started::Query(id)),
                _ => {
                    let message = "StartQuery told no query id";
                    return Err(SourceError::new(Reason::BadAnswer, message));
                }
            },
            Err(error) => error,
        };
        let told = error.as_service_error();
        let told = told.and_then(|error| error.meta().message());
        // A statement that is refused costs nothing.
        match told.is_some_and(|message| !query.plain && sql::no_key_exchange(message)) {
            true => Ok(Started::Reworded),
            false => Err(aws::failed(&self.observer, "StartQuery", error)),
        }
    }

    async fn look(&self, id: &str, query: &Query) -> Result<Look, SourceError> {
        let told = match self.describe(id).await {
            // The query is older than AWS keeps results, or was never known.
            Err(error) if error.reason == Reason::NotFound => return Ok(Look::unknown(error)),
            answer => answer?,
        };
        let message = told.error_message().unwrap_or("AWS tells no reason");
        let failed = |reason| {
            let message = format!("the query failed at AWS: {message}");
            SourceError::new(reason, message)
        };
        let end = match told.query_status() {
            Some(QueryStatus::Finished) => match self.answer(id, &query.leaf).await {
                // Its results are gone.
                Err(error) if matches!(error.reason, Reason::NotFound | Reason::Rejected) => {
                    End::Failed(error)
                }
                answer => End::Complete(answer?),
            },
            Some(QueryStatus::Cancelled) => End::Stopped,
            // Its rows could be read, and are not all.
            Some(QueryStatus::TimedOut) => {
                let message = "the query took AWS too long";
                End::TooMuch(SourceError::new(Reason::Timeout, message))
            }
            Some(QueryStatus::Failed) if !query.plain && sql::no_key_exchange(message) => {
                End::Reworded
            }
            Some(QueryStatus::Failed) if sql::too_much(message) => {
                End::TooMuch(failed(Reason::Timeout))
            }
            Some(QueryStatus::Failed) => End::Failed(failed(Reason::Rejected)),
            _ => return Ok(Look::Running),
        };
        let scanned = told
            .query_statistics()
            .map_or_else(Scanned::default, scanned);
        Ok(Look::ended(end, scanned))
    }

    async fn stop(&self, id: &str) -> Result<(), SourceError> {
        let request = self.client.cancel_query().query_id(id);
        let request =
            request.set_event_data_store_owner_account_id(self.settings.owner_account.clone());
        let failed = |error| aws::failed(&self.observer, "CancelQuery", error);
        request.send().await.map(drop).map_err(failed)
    }

    fn observer(&self) -> &Observer {
        &self.observer
    }
}

fn scanned(statistics: &QueryStatisticsForDescribeQuery) -> Scanned {
    let number = |number: Option<i64>| number.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    Scanned::billed(
        number(statistics.bytes_scanned()),
        number(statistics.events_scanned()),
    )
}
