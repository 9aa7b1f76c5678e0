//! A call and its key: what is counted, and by what; and who makes it.

mod busiest;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::busiest::{busiest, in_turns};
use crate::time::Timestamp;
use crate::tls::{KeyExchange, TlsVersion};

/// A value of a record that becomes a label: never empty (`none` stands for absent) and never longer
/// than [`Name::LONGEST`]. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest label value in bytes; longer ones are cut, so that no record can break a scrape
    /// that has a `label_value_length_limit`.
    pub const LONGEST: usize = 200;

    /// The name for `text`.
    pub fn new(text: &str) -> Self {
        Self(Self::text(text).into())
    }

    /// What the name for `text` says: `none` for nothing, and no more than [`Name::LONGEST`] bytes, cut
    /// between characters.
    pub fn text(text: &str) -> &str {
        match text {
            "" => "none",
            _ => text
                .get(..text.floor_char_boundary(Self::LONGEST))
                .unwrap_or(text),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The whole key by which calls are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// `eventSource` without `.amazonaws.com`.
    pub aws_service: Name,
    /// `eventName`.
    pub event_name: Name,
    /// `tlsDetails.tlsVersion`.
    pub tls_version: TlsVersion,
    /// `tlsDetails.cipherSuite`.
    pub cipher_suite: Name,
    /// `tlsDetails.keyExchange`.
    pub key_exchange: KeyExchange,
    /// `recipientAccountId`.
    pub account_id: Name,
    /// `awsRegion`.
    pub aws_region: Name,
}

impl CallKey {
    /// The `aws_service` of an event source.
    pub fn service_of(event_source: &str) -> &str {
        event_source
            .strip_suffix(".amazonaws.com")
            .unwrap_or(event_source)
    }
}

/// Who makes calls, and which: asked of outdated calls alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// `eventSource` without `.amazonaws.com`.
    pub aws_service: Name,
    /// `eventName`.
    pub event_name: Name,
    /// `tlsDetails.tlsVersion`.
    pub tls_version: TlsVersion,
    /// `recipientAccountId`.
    pub account_id: Name,
    /// The ARN of the session's issuer, which sessions of a role share; else that of the identity, else what stands
    /// in for it.
    pub principal: Name,
    /// `userAgent`.
    pub user_agent: Name,
    /// `sourceIPAddress`.
    pub source_ip: Name,
}

/// What is told of a caller. What is not is `none` in every [`Caller`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerLabels {
    /// Its principal.
    pub principal: bool,
    /// Its user agent.
    pub user_agent: bool,
    /// Where it calls from.
    pub source_ip: bool,
}

impl CallerLabels {
    /// Whether anything is told, so that there are callers at all.
    pub fn any(self) -> bool {
        self.principal || self.user_agent || self.source_ip
    }
}

/// Whose calls are told, and what of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedCallers {
    /// Those who call on a version below this.
    pub below: TlsVersion,
    /// What is told of them.
    pub labels: CallerLabels,
}

impl AskedCallers {
    /// Whether the caller of a call on `version` is told.
    pub fn of(self, version: TlsVersion) -> bool {
        version.outdated(self.below) && self.labels.any()
    }
}

/// How many calls, and the latest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls counted.
    pub calls: u64,
    /// The latest `eventTime` among them.
    pub last: Timestamp,
}

impl Tally {
    /// Adds `other`'s calls to these.
    pub fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.last = self.last.max(other.last);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A call on `version` in one account and region; tests vary what they are about.
    pub(crate) fn call(tls_version: TlsVersion, service: &str, event: &str) -> CallKey {
        CallKey {
            aws_service: Name::new(service),
            event_name: Name::new(event),
            tls_version,
            cipher_suite: Name::new("TLS_AES_128_GCM_SHA256"),
            key_exchange: KeyExchange::from_record(Some("x25519")),
            account_id: Name::new("111122223333"),
            aws_region: Name::new("eu-west-1"),
        }
    }

    #[test]
    fn names_are_never_empty_and_are_cut_between_characters() {
        assert_eq!(Name::new("").as_str(), "none");
        assert_eq!(Name::new("GetObject").as_str(), "GetObject");
        let long = "é".repeat(150);
        assert_eq!(Name::new(&long).as_str(), "é".repeat(100));
        assert_eq!(
            Name::new(&format!("a{long}")).as_str(),
            format!("a{}", "é".repeat(99))
        );
    }

    #[test]
    fn a_service_is_the_event_source_without_the_domain() {
        assert_eq!(CallKey::service_of("s3.amazonaws.com"), "s3");
        assert_eq!(
            CallKey::service_of("s3.amazonaws.com.cn"),
            "s3.amazonaws.com.cn"
        );
    }
}
