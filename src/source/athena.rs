//! Asks Athena over a table of CloudTrail's log files in S3, or of a federated CloudTrail Lake store.
//!
//! The files lie in a folder for each day on which they were delivered, and a query reads every file of the days
//! that it names: windows end at multiples of the source's `interval`, a day by default, so that each day is read
//! once whole, and once more for the calls of the evening before that were delivered after midnight.

mod partitions;

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_athena::Client;
use aws_sdk_athena::config::Builder;
use aws_sdk_athena::operation::get_query_results::GetQueryResultsOutput;
use aws_sdk_athena::types::{
    QueryExecution, QueryExecutionContext, QueryExecutionState, ResultConfiguration, Row,
    ThrottleReason,
};
use xxhash_rust::xxh3::xxh3_128;

use self::partitions::conditions;
use super::query::{Answer, End, Engine, Leaf, Look, Query, Started};
use super::sql::{self, Reader, Table, identifier};
pub use super::sql::{MOST_ROWS, PAGE};
use crate::aws::{self, Observer, Quota};
use crate::batch::Scanned;
use crate::source::{Reason, SourceError};

/// A query is billed for at least this much: 10 MB, as those quote it who write of AWS's prices.
pub const LEAST_BILLED: u64 = 10 << 20;

/// How a table is partitioned, and what its `eventtime` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// By one text `timestamp` as `2026/06/01` (AWS: "Create the table for CloudTrail logs in Athena using partition
    /// projection").
    #[default]
    Timestamp,
    /// By texts `year`, `month` and `day`, and others (AWS: "… using manual partitioning", "Create a table for an
    /// organization wide trail").
    YearMonthDay,
    /// A federated CloudTrail Lake store: the time of a call is a `timestamp`.
    Lake,
}

/// The settings of one `athena` source, beside those that all query sources share.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The catalog, the database in it, and the table in that.
    pub catalog: String,
    /// See `catalog`.
    pub database: String,
    /// See `catalog`.
    pub table: String,
    /// The workgroup that the queries run in.
    pub workgroup: String,
    /// Where results go in S3; `None` where the workgroup says it, or Athena manages results.
    pub output_location: Option<String>,
    /// How the table is partitioned.
    pub layout: Layout,
    /// Whether records of one event id are one call.
    pub deduplicate: bool,
    /// How long after its end a window is asked for: what was delivered by then counts.
    pub settle: Duration,
    /// How much later it is counted again.
    pub recount_after: Duration,
    /// The grid of time.
    pub bucket: Duration,
    /// The most rows of an answer.
    pub most_rows: usize,
    /// The most rows of a page.
    pub page: usize,
}

/// Athena.
#[derive(Debug)]
pub struct Athena {
    client: Client,
    observer: Observer,
    quota: Arc<Quota>,
    settings: Settings,
    table: String,
}

impl Athena {
    /// The engine over an AWS configuration. `quota` is that of its account and Region.
    pub fn new(config: &SdkConfig, settings: Settings, quota: Arc<Quota>) -> Self {
        let observer = Observer::default();
        let config = Builder::from(config).interceptor(observer.clone()).build();
        let names = [&settings.catalog, &settings.database, &settings.table];
        Self {
            client: Client::from_conf(config),
            observer,
            quota,
            table: names.map(|name| identifier(name)).join("."),
            settings,
        }
    }

    fn statement(&self, query: &Query) -> String {
        let leaf = &query.leaf;
        let layout = self.settings.layout;
        let table = Table {
            name: &self.table,
            seconds: match layout {
                Layout::Lake => "CAST(floor(to_unixtime(eventTime)) AS bigint)",
                _ => "CAST(floor(to_unixtime(from_iso8601_timestamp(eventTime))) AS bigint)",
            },
            key_exchange: (!query.plain).then_some("tlsDetails.keyExchange"),
            deduplicate: self.settings.deduplicate,
            bucket: self.settings.bucket,
            most_rows: self.settings.most_rows,
        };
        let recount_after = self.settings.recount_after;
        let late = match leaf.recount {
            true => self.settings.settle + recount_after,
            false => self.settings.settle,
        };
        sql::statement(leaf, &table, &conditions(layout, leaf, late))
    }

    /// What tells one start from another: the same token with other parameters is an error.
    fn request_token(&self, statement: &str, token: &str) -> String {
        let settings = &self.settings;
        let output = settings.output_location.as_deref().unwrap_or_default();
        let parameters = [statement, &settings.workgroup, output].join("\n");
        format!("{token}-{:032x}", xxh3_128(parameters.as_bytes()))
    }

    async fn execution(&self, id: &str) -> Result<QueryExecution, SourceError> {
        let request = self.client.get_query_execution().query_execution_id(id);
        let failed = |error| aws::failed(&self.observer, "GetQueryExecution", error);
        let answer = request.send().await.map_err(failed)?;
        let nothing = || SourceError::new(Reason::BadAnswer, "GetQueryExecution told nothing");
        answer.query_execution.ok_or_else(nothing)
    }

    /// Reads all pages of a query that has succeeded.
    async fn answer(&self, id: &str, leaf: &Leaf) -> Result<Answer, SourceError> {
        let mut reader = Reader::new(leaf);
        let mut names: Vec<String> = Vec::new();
        let mut next = None;
        loop {
            self.quota.poll().await;
            let first = next.is_none();
            let page = self.page(id, next).await?;
            let set = page.result_set();
            if let Some(columns) = set.and_then(|set| set.result_set_metadata()) {
                let columns = columns.column_info().iter();
                names = columns
                    .map(|column| column.name().to_ascii_lowercase())
                    .collect();
            }
            let rows = set.map_or(&[][..], |set| set.rows());
            // The first row has the names of the columns (AWS shows it in examples alone, so it may be missing).
            let header = first && rows.first().is_some_and(|row| is_header(row, &names));
            for row in rows.iter().skip(usize::from(header)) {
                reader.read(|name| {
                    let place = names.iter().position(|column| column == name)?;
                    row.data().get(place)?.var_char_value()
                })?;
            }
            let truncated = reader.len() >= self.settings.most_rows;
            next = page
                .next_token()
                .filter(|token| !token.is_empty())
                .map(str::to_owned);
            if truncated || next.is_none() {
                return Ok(Answer {
                    rows: reader.rows(),
                    truncated,
                });
            }
            if rows.is_empty() {
                return Err(SourceError::new(Reason::BadAnswer, "the pages have no end"));
            }
        }
    }

    async fn page(
        &self,
        id: &str,
        token: Option<String>,
    ) -> Result<GetQueryResultsOutput, SourceError> {
        let request = self.client.get_query_results().query_execution_id(id);
        let request = request
            .max_results(i32::try_from(self.settings.page).unwrap_or(i32::MAX))
            .set_next_token(token);
        let failed = |error| aws::failed(&self.observer, "GetQueryResults", error);
        request.send().await.map_err(failed)
    }

    /// What became of a query that ended without an answer.
    fn ended_badly(told: &QueryExecution, query: &Query, cancelled: bool) -> End {
        let status = told.status();
        let message = status.and_then(|status| status.state_change_reason());
        let error = status.and_then(|status| status.athena_error());
        let message = message.or_else(|| error.and_then(|error| error.error_message()));
        let message = message.unwrap_or("AWS tells no reason");
        let failed = |reason| {
            let message = format!("the query failed at AWS: {message}");
            SourceError::new(reason, message)
        };
        match cancelled {
            // The workgroup's limit of bytes a query: parts of a day scan the same bytes again.
            true if message.contains("Bytes scanned limit") => {
                End::Failed(failed(Reason::TooLarge))
            }
            true => End::Stopped,
            false if !query.plain && sql::no_key_exchange(message) => End::Reworded,
            false if error.is_some_and(|error| error.retryable()) => {
                End::Failed(failed(Reason::Connection))
            }
            false if sql::too_much(message) => End::TooMuch(failed(Reason::Timeout)),
            // Parts of a day read its files again: a longer limit of the workgroup's queries is what helps.
            false if message.contains("timeout") => End::Failed(failed(Reason::Timeout)),
            false
                if message.contains("TABLE_NOT_FOUND") || message.contains("SCHEMA_NOT_FOUND") =>
            {
                End::Failed(failed(Reason::NotFound))
            }
            false if message.contains("Access Denied") || message.contains("permission") => {
                End::Failed(failed(Reason::AccessDenied))
            }
            false => End::Failed(failed(Reason::Rejected)),
        }
    }
}

impl Engine for Athena {
    /// A query reads all files of the days that it names.
    const PARTS_SAVE: bool = false;
    const TOKENS: bool = true;
    const LEAST_BILLED: u64 = LEAST_BILLED;

    fn identity(&self) -> String {
        format!("{:?}", self.settings)
    }

    fn subject(&self) -> String {
        let Settings {
            catalog,
            database,
            table,
            ..
        } = &self.settings;
        format!("{catalog:?} {database:?} {table:?}")
    }

    async fn greet(&self) -> Result<(), SourceError> {
        let group = self.client.get_work_group();
        let request = group.work_group(&self.settings.workgroup);
        aws::greeted(&self.observer, "GetWorkGroup", request.send()).await
    }

    async fn start(&self, query: &Query, token: &str) -> Result<Started, SourceError> {
        let settings = &self.settings;
        let statement = self.statement(query);
        let output = settings.output_location.as_ref();
        let output = output.map(|at| ResultConfiguration::builder().output_location(at).build());
        let context = QueryExecutionContext::builder()
            .catalog(&settings.catalog)
            .database(&settings.database)
            .build();
        let request = self
            .client
            .start_query_execution()
            .client_request_token(self.request_token(&statement, token))
            .query_string(statement)
            .query_execution_context(context)
            .work_group(&settings.workgroup)
            .set_result_configuration(output);
        let answer = request.send().await.map_err(|error| {
            let busy = error.as_service_error().and_then(|error| match error {
                aws_sdk_athena::operation::start_query_execution::StartQueryExecutionError::TooManyRequestsException(
                    error,
                ) => error.reason(),
                _ => None,
            });
            match busy {
                Some(ThrottleReason::ConcurrentQueryLimitExceeded) => aws::failed_because(
                    &self.observer,
                    "StartQueryExecution",
                    error,
                    Reason::ConcurrencyLimit,
                ),
                _ => aws::failed(&self.observer, "StartQueryExecution", error),
            }
        })?;
        match answer.query_execution_id {
            Some(id) if !id.is_empty() => Ok(Started::Query(id)),
            _ => Err(SourceError::new(
                Reason::BadAnswer,
                "StartQueryExecution told no query id",
            )),
        }
    }

    async fn look(&self, id: &str, query: &Query) -> Result<Look, SourceError> {
        let told = match self.execution(id).await {
            // The query is older than AWS keeps its history, or was never known.
            Err(error) if error.to_string().contains("not found") => {
                return Ok(Look::unknown(error));
            }
            answer => answer?,
        };
        let state = told.status().and_then(|status| status.state());
        let end = match state {
            Some(QueryExecutionState::Succeeded) => match self.answer(id, &query.leaf).await {
                // Its results are gone.
                Err(error) if matches!(error.reason, Reason::NotFound | Reason::Rejected) => {
                    End::Failed(error)
                }
                answer => End::Complete(answer?),
            },
            Some(QueryExecutionState::Cancelled) => Self::ended_badly(&told, query, true),
            Some(QueryExecutionState::Failed) => Self::ended_badly(&told, query, false),
            // One that runs may wait again: RUNNING goes back to QUEUED.
            _ => return Ok(Look::Running),
        };
        let statistics = told.statistics();
        let bytes = statistics.and_then(|statistics| statistics.data_scanned_in_bytes());
        let bytes = bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0);
        let scanned = Scanned {
            bytes,
            // What fails is not billed, as those quote it who write of AWS's prices.
            billed_bytes: match state {
                Some(QueryExecutionState::Failed) => 0,
                _ => bytes.max(LEAST_BILLED),
            },
            // Athena does not tell them.
            records: 0,
        };
        Ok(Look::Ended(end, Some(scanned)))
    }

    async fn stop(&self, id: &str) -> Result<(), SourceError> {
        let request = self.client.stop_query_execution().query_execution_id(id);
        let failed = |error| aws::failed(&self.observer, "StopQueryExecution", error);
        request.send().await.map(drop).map_err(failed)
    }

    fn observer(&self) -> &Observer {
        &self.observer
    }
}

fn is_header(row: &Row, names: &[String]) -> bool {
    let cells = row.data().iter().map(|cell| cell.var_char_value());
    let cells = cells.map(|cell| cell.unwrap_or_default().to_ascii_lowercase());
    cells.eq(names.iter().cloned())
}
