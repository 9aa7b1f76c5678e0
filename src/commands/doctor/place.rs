//! Where a source asks AWS: who it is there, in which Region, and how the clocks compare.

use std::time::Duration;

use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;

use super::report::{Check, Section, Verdict};
use crate::aws::{self, Access, Observer, Place, SdkConfig};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;
use crate::worker::chain;

/// Clocks further apart than this are worth a word; AWS refuses requests that are 5 to 15 minutes off.
const SKEW: u64 = 60;

/// One role in one Region.
#[derive(Debug)]
pub(super) struct Aws {
    pub(super) sdk: SdkConfig,
    /// Watches what this command asks for itself; a source's engine has its own.
    pub(super) observer: Observer,
    pub(super) region: String,
    /// The account, or `*` where nobody told it.
    account: String,
    partition: String,
}

impl Aws {
    /// Finds out who asks and where; `None` where no request can go well.
    pub(super) async fn find(
        access: &Access,
        place: &Place,
        section: &mut Section,
    ) -> Option<Self> {
        let sdk = access.load(place).await;
        let region = sdk.region().map(ToString::to_string);
        section.region.clone_from(&region);
        let observer = Observer::default();
        observer.tell(Timestamp::now());
        let identity = identity(access, place, region.as_deref(), &observer).await;
        let mut usable = true;
        let mut arn = None;
        match identity {
            Ok((who, account)) => {
                section.push(
                    Check::ok("identity", who.clone())
                        .fact("arn", who.clone())
                        .fact("account", account),
                );
                arn = Some(who);
            }
            Err(error) => {
                usable = error.reason != Reason::Credentials;
                section.push(unidentified(&error, place));
            }
        }
        let Some(region) = region else {
            section.push(
                Check::failed("region", "no Region is configured")
                    .hint("set `region` or `regions` of the source, or AWS_REGION"),
            );
            return None;
        };
        section.push(Check::ok("region", region.clone()).fact("region", region.clone()));
        let arn = arn.or_else(|| section.role.clone()).unwrap_or_default();
        let part = |place: usize| arn.split(':').nth(place).map(str::to_owned);
        let aws = Self {
            sdk,
            // Clocks are compared anew: STS is another host.
            observer: Observer::default(),
            account: part(4).unwrap_or_else(|| "*".to_owned()),
            partition: part(1).unwrap_or_else(|| "aws".to_owned()),
            region,
        };
        aws.observer.tell(Timestamp::now());
        if !usable {
            // A clock that is minutes off looks like wrong credentials.
            section.checks.extend(observer.ahead().map(clock));
            return None;
        }
        Some(aws)
    }

    /// An ARN in this account and Region.
    pub(super) fn arn(&self, service: &str, rest: &str) -> String {
        let (partition, region, account) = (&self.partition, &self.region, &self.account);
        format!("arn:{partition}:{service}:{region}:{account}:{rest}")
    }

    /// The earlier of the host's clock and AWS's.
    pub(super) fn now(&self) -> Timestamp {
        self.observer.trusted(Timestamp::now())
    }

    /// How the host's clock compares with AWS's, once an answer has told.
    pub(super) fn clock(&self) -> Option<Check> {
        self.observer.ahead().map(clock)
    }
}

/// How the host's clock compares with AWS's, so many seconds ahead.
pub(super) fn clock(ahead: i64) -> Check {
    let apart = humantime::format_duration(Duration::from_secs(ahead.unsigned_abs()));
    let found = match ahead {
        0 => "the host's clock is AWS's".to_owned(),
        1.. => format!("the host's clock is {apart} ahead of AWS's"),
        _ => format!("the host's clock is {apart} behind AWS's"),
    };
    let check = match ahead.unsigned_abs() > SKEW {
        true => Check::warning("clock", found)
            .hint("set the host's clock (NTP): AWS refuses requests that are minutes off"),
        false => Check::ok("clock", found),
    };
    check.fact("ahead_seconds", ahead)
}

/// GetCallerIdentity: the ARN and the account. It is asked at AWS's own endpoint, as `endpoint_url` is the source's.
async fn identity(
    access: &Access,
    place: &Place,
    region: Option<&str>,
    observer: &Observer,
) -> Result<(String, String), SourceError> {
    let access = Access {
        endpoint_url: None,
        ..access.clone()
    };
    // Who asks can be told without the source's Region.
    let place = Place {
        region: Some(region.unwrap_or("us-east-1").to_owned()),
        ..place.clone()
    };
    let sdk = access.load(&place).await;
    let config = Builder::from(&sdk).interceptor(observer.clone()).build();
    let answer = Client::from_conf(config).get_caller_identity().send().await;
    let answer = answer.map_err(|error| aws::failed(observer, "GetCallerIdentity", error))?;
    match (answer.arn, answer.account) {
        (Some(arn), Some(account)) => Ok((arn, account)),
        _ => {
            let message = "GetCallerIdentity told no identity";
            Err(SourceError::new(Reason::BadAnswer, message))
        }
    }
}

fn unidentified(error: &SourceError, place: &Place) -> Check {
    let hint = match (&place.role, error.reason) {
        (Some(role), Reason::Credentials) => format!(
            "allow sts:AssumeRole on {} to who asks, and who asks in the role's trust policy; look at `external_id`",
            role.arn
        ),
        (None, Reason::Credentials) => {
            "give it credentials that hold: environment, profile (`profile`), web identity, \
                                        container or instance"
                .to_owned()
        }
        (_, Reason::AccessDenied) => {
            "sts:GetCallerIdentity needs no permission: somebody denies it".to_owned()
        }
        _ => "no source needs it: look at the network's way to STS, and at AWS_ENDPOINT_URL_STS"
            .to_owned(),
    };
    let failed = error.reason == Reason::Credentials;
    let verdict = if failed {
        Verdict::Failed
    } else {
        Verdict::Warning
    };
    Check::new("identity", verdict, chain(error)).hint(hint)
}

/// Who asks is not known, and that is a failure where anything else failed too.
pub(super) fn judge_identity(section: &mut Section) {
    if !section.has_failed() {
        return;
    }
    let checks = section.checks.iter_mut();
    for check in checks.filter(|it| it.name == "identity" && it.verdict == Verdict::Warning) {
        check.verdict = Verdict::Failed;
    }
}

/// What to do about a failed request; `allow` is the action and the resource.
pub(super) fn hint(reason: Reason, allow: &str) -> String {
    match reason {
        Reason::AccessDenied => {
            format!("allow {allow} (README: \"What the exporter must be allowed\")")
        }
        Reason::Credentials => {
            "the credentials are wrong or have expired: renew them, or name others by `profile` or \
                                `roles`; a clock that is minutes off looks the same"
                .to_owned()
        }
        Reason::Throttled | Reason::ConcurrencyLimit => {
            "others ask AWS too, and quotas are the account's: try again in a minute".to_owned()
        }
        Reason::Timeout | Reason::Connection => {
            "look at the network, at a proxy, and at `endpoint_url`; or AWS fails for now"
                .to_owned()
        }
        Reason::NotFound => "look at the name, the account and `region`".to_owned(),
        _ => "AWS refuses it as it was asked: look at what it says, and at the source's keys"
            .to_owned(),
    }
}
