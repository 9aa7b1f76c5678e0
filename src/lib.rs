//! Counts the AWS API calls that CloudTrail records by the TLS version they used, and serves the
//! counts to Prometheus.
//!
//! Facts flow one way:
//!
//! ```text
//! config → source → batch → store → totals → exposition → http
//! ```
//!
//! A [`source`] turns its stored progress and the time into the next [`batch`]; the [`worker`]
//! hands it to the [`store`], which commits counts and progress in one transaction and only then
//! tells the [`totals`]. The [`exposition`] renders them once per change; [`http`] hands out the
//! rendered bytes.
//!
//! Reading order: [`time`], [`window`], [`tls`], [`call`], [`record`] are the domain, without IO or
//! clock; then the flow above, with [`series`] deciding which counters there are; [`metrics`] and [`status`] are about the exporter itself.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod aws;
pub mod batch;
pub mod call;
pub mod cli;
pub mod commands;
pub mod config;
pub mod exposition;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod record;
pub mod sample_trail;
pub mod series;
pub mod shutdown;
pub mod source;
pub mod status;
pub mod store;
pub mod time;
pub mod tls;
pub mod totals;
pub mod window;
pub mod worker;
