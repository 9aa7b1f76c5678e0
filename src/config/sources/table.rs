//! One `[[sources]]` table: its keys by their names in it, and those that several types share.

use std::collections::HashSet;
use std::time::Duration;

use bytesize::ByteSize;

use super::super::keys::{Keys, duration, size};
use super::Shared;
use crate::aws::{Access, Role};
use crate::source::Terms;
use crate::source::query::{self, AskCallers, Recount};
use crate::window::Schedule;

/// Buckets that have left the window become hours.
const HOUR: Duration = Duration::from_secs(3600);
const BUDGET: &str = "budget_bytes_per_day";

/// The keys of one table.
pub(super) struct Table<'k> {
    pub(super) keys: &'k mut Keys,
    pub(super) place: usize,
    pub(super) shared: &'k Shared,
}

/// What query sources differ in, where their keys are the same.
pub(super) struct Queries {
    pub(super) interval: &'static str,
    pub(super) settle: &'static str,
    pub(super) recount_after: &'static str,
    /// See [`Recount::check_first`].
    pub(super) check_first: bool,
    /// The longest window, when catching up.
    pub(super) longest: Duration,
    /// How long a query runs at least, as a rule.
    pub(super) first_pause: Duration,
    pub(super) price_per_gib: f64,
    /// See [`AskCallers::apart`].
    pub(super) apart: bool,
    /// Whether only outdated calls are asked for.
    pub(super) control: bool,
}

impl Table<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("sources[{}].{name}", self.place)
    }

    pub(super) fn value<T>(
        &mut self,
        name: &str,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.keys.value(&self.key(name), default, read)
    }

    /// One of some words, the first of which is the default.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&'static str, T)]) -> T {
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("`{word}`"))
            .collect();
        let (last, others) = words.split_last().expect("there is a choice");
        let rule = format!("must be {} or {last}", others.join(", "));
        let read = |text: &str| {
            let found = choices.iter().find(|(word, _)| *word == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| rule.clone())
        };
        self.value(name, choices.first().map_or("", |(word, _)| word), read)
    }

    pub(super) fn duration(&mut self, name: &str, default: &str) -> Duration {
        self.keys.duration(&self.key(name), default)
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        self.keys.flag(&self.key(name), default)
    }

    pub(super) fn required(&mut self, name: &str) -> String {
        self.keys.required(&self.key(name))
    }

    pub(super) fn optional(&mut self, name: &str) -> Option<String> {
        self.keys.optional(&self.key(name))
    }

    pub(super) fn texts(&mut self, name: &str) -> Vec<String> {
        self.keys.texts(&self.key(name), &[])
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.keys.is_set(&self.key(name))
    }

    pub(super) fn check(&mut self, ok: bool, name: &str, rule: &str) {
        self.keys.check(ok, &self.key(name), rule);
    }

    pub(super) fn interval(&mut self, default: &str) -> Duration {
        let interval = self.duration("interval", default);
        let enough = interval >= Duration::from_secs(1);
        self.check(enough, "interval", "must be at least 1s");
        interval
    }

    /// How much of the past is counted at the first start; the default gives way to a shorter retention.
    pub(super) fn lookback(&mut self, default: &str) -> Duration {
        let lookback = self.duration("lookback", default);
        let retention = self.shared.retention;
        let fits = lookback <= retention || !self.is_set("lookback");
        self.check(
            fits,
            "lookback",
            "must not be longer than `state.retention`",
        );
        lookback.min(retention)
    }

    pub(super) fn catch_up_limit(&mut self, lookback: Duration) -> Duration {
        let limit = self.duration("catch_up_limit", "7d");
        let fits = limit >= lookback;
        self.check(
            fits,
            "catch_up_limit",
            "must not be shorter than `lookback`",
        );
        limit
    }

    /// How AWS is reached; the same for every source that asks it.
    pub(super) fn access(&mut self) -> Access {
        let endpoint_url = self.optional("endpoint_url");
        let url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        self.check(
            endpoint_url.as_deref().is_none_or(url),
            "endpoint_url",
            "must begin with http:// or https://",
        );
        let use_fips = self.flag("use_fips", false);
        let use_dual_stack = self.flag("use_dual_stack", false);
        self.check(
            endpoint_url.is_none() || !use_fips && !use_dual_stack,
            "endpoint_url",
            "must not be set together with `use_fips` or `use_dual_stack`, which choose AWS's own endpoint",
        );
        Access {
            regions: self.regions(),
            roles: self.roles(),
            profile: self.optional("profile"),
            endpoint_url,
            use_fips,
            use_dual_stack,
        }
    }

    fn regions(&mut self) -> Vec<String> {
        let region = self.optional("region");
        let regions = self.texts("regions");
        self.check(
            region.is_none() || regions.is_empty(),
            "regions",
            "must not be set together with `region`",
        );
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let named = |region: &String| !region.is_empty() && region.chars().all(plain);
        let differ: HashSet<&String> = regions.iter().collect();
        self.check(
            regions.iter().all(named) && differ.len() == regions.len(),
            "regions",
            "must be names of Regions such as `eu-west-1`, each once",
        );
        if regions.is_empty() {
            return region.into_iter().collect();
        }
        regions
    }

    fn roles(&mut self) -> Vec<Role> {
        let number = self.keys.tables(&self.key("roles"));
        let mut roles: Vec<Role> = Vec::new();
        for place in 0..number {
            let key = format!("roles[{place}].arn");
            let arn = self.required(&key);
            let account = Role::account_of(&arn).map(str::to_owned);
            self.check(
                arn.is_empty() || account.is_some(),
                &key,
                "must be the ARN of a role such as `arn:aws:iam::111122223333:role/reader`",
            );
            let known = |role: &Role| Role::account_of(&role.arn).map(str::to_owned) == account;
            self.check(
                account.is_none() || !roles.iter().any(known),
                &key,
                "must be of another account than the roles before: its calls would count twice",
            );
            let external_id = self.optional(&format!("roles[{place}].external_id"));
            // The API reference of AssumeRole has the rule.
            let plain = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
            let fits = |id: &str| (2..=1224).contains(&id.len()) && id.chars().all(plain);
            self.check(
                external_id.as_deref().is_none_or(fits),
                &format!("roles[{place}].external_id"),
                "must be 2 to 1224 letters, digits or `_+=,.@:/-`",
            );
            roles.push(Role { arn, external_id });
        }
        roles
    }

    /// The most bytes that AWS may bill for a day: `least` at least, as less lets no query through.
    pub(super) fn budget(&mut self, least: u64) -> Option<u64> {
        let text = self.optional(BUDGET)?;
        let budget = match size(&text) {
            Ok(budget) => budget,
            Err(rule) => {
                self.check(false, BUDGET, &rule);
                return None;
            }
        };
        let rule = match least {
            0 | 1 => "must be more than 0".to_owned(),
            least => {
                let least = ByteSize(least).display().iec();
                format!("must be at least {least}: no query is billed for less")
            }
        };
        self.check(budget >= least, BUDGET, &rule);
        Some(budget)
    }

    /// A source that has no bill has no budget.
    pub(super) fn no_budget(&mut self) -> Option<u64> {
        let set = self.is_set(BUDGET);
        self.check(
            !set,
            BUDGET,
            "is for `athena`, `lake` and `logs_insights`: AWS does not bill what this source reads",
        );
        self.keys.ignore(&self.key(BUDGET));
        None
    }

    /// The keys of every query source: how often it is asked, its terms, and its windows.
    pub(super) fn queries(&mut self, of: &Queries) -> (Duration, Terms, query::Settings) {
        let interval = self.interval(of.interval);
        let settle = self.duration("settle", of.settle);
        let lookback = self.lookback("24h");
        let catch_up_limit = self.catch_up_limit(lookback);
        let timeout = self.duration("timeout", "15m");
        // Logs Insights and Lake end a query after an hour, Athena sooner.
        let bounded = (Duration::from_secs(10)..=HOUR).contains(&timeout);
        self.check(bounded, "timeout", "must be between 10s and 1h");
        let callers = self.shared.callers.labels;
        let settings = query::Settings {
            schedule: Schedule {
                bucket: self.shared.bucket,
                settle,
                longest: of.longest,
                interval,
            },
            lookback,
            catch_up_limit,
            timeout,
            first_pause: of.first_pause,
            recount: self.recount(of, interval, settle),
            control: of.control,
            minimum_version: self.shared.minimum_version,
            callers: callers.any().then_some(AskCallers {
                columns: callers,
                window: self.shared.window,
                apart: of.apart,
            }),
        };
        let terms = Terms {
            schedule: settings.schedule,
            price_per_gib: self
                .keys
                .amount(&self.key("price_per_gib"), of.price_per_gib),
        };
        (interval, terms, settings)
    }

    /// Whether windows are counted again; the default gives way to a short window of the gauges.
    fn recount(&mut self, of: &Queries, interval: Duration, settle: Duration) -> Option<Recount> {
        let name = "recount_after";
        let after = self.value(name, of.recount_after, |text| match text {
            "off" => Ok(None),
            text => duration(text, "must be `off` or a duration such as \"6h\"").map(Some),
        })?;
        let reach = self.shared.window.saturating_sub(HOUR);
        let fits = after.saturating_add(settle).saturating_add(interval) < reach;
        self.check(
            fits || !self.is_set(name),
            name,
            "needs a `window.length` longer than this, `settle`, `interval` and an hour together",
        );
        fits.then_some(Recount {
            after,
            reach,
            check_first: of.check_first,
        })
    }
}
