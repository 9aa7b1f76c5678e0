//! The members of a record as they stand in the file.

use std::borrow::Cow;

use super::caller::RawCaller;
use super::walk::{Unexpected, Walk};

/// A text or null, borrowed wherever it has no escapes.
#[derive(Default)]
pub(super) struct Text<'a>(pub(super) Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    fn read(walk: &mut Walk<'a>) -> Result<Self, Unexpected> {
        walk.text_or_null().map(Self)
    }

    /// The text, or an empty one.
    pub(super) fn or_empty(self) -> Cow<'a, str> {
        self.0.unwrap_or_default()
    }

    /// Whether this is `value`.
    pub(super) fn is(&self, value: &str) -> bool {
        self.0.as_deref() == Some(value)
    }
}

/// The members that are counted by, and those that tell who called. One of the former of another type than text is an
/// error: the record is not one of CloudTrail's.
#[derive(Default)]
pub(super) struct Raw<'a> {
    pub(super) event_time: Text<'a>,
    pub(super) event_source: Text<'a>,
    pub(super) event_name: Text<'a>,
    pub(super) aws_region: Text<'a>,
    pub(super) event_id: Text<'a>,
    pub(super) recipient_account_id: Text<'a>,
    pub(super) event_category: Text<'a>,
    pub(super) tls_details: Option<RawTls<'a>>,
    pub(super) caller: RawCaller<'a>,
}

impl<'a> Raw<'a> {
    /// Reads the record that stands at `walk`.
    pub(super) fn read(walk: &mut Walk<'a>) -> Result<Self, Unexpected> {
        let mut raw = Self::default();
        walk.members(|walk, name| {
            let member = match name {
                "eventTime" => &mut raw.event_time,
                "eventSource" => &mut raw.event_source,
                "eventName" => &mut raw.event_name,
                "awsRegion" => &mut raw.aws_region,
                "eventID" => &mut raw.event_id,
                "recipientAccountId" => &mut raw.recipient_account_id,
                "eventCategory" => &mut raw.event_category,
                "tlsDetails" => {
                    raw.tls_details = RawTls::read(walk)?;
                    return Ok(());
                }
                "userIdentity" => return walk.raw().map(|json| raw.caller.user_identity = json),
                "userAgent" => return walk.raw().map(|json| raw.caller.user_agent = json),
                "sourceIPAddress" => return walk.raw().map(|json| raw.caller.source_ip = json),
                _ => return walk.skip(),
            };
            *member = Text::read(walk)?;
            Ok(())
        })?;
        Ok(raw)
    }
}

/// `tlsDetails`; AWS documents that any member may be missing.
#[derive(Default)]
pub(super) struct RawTls<'a> {
    pub(super) tls_version: Text<'a>,
    pub(super) cipher_suite: Text<'a>,
    pub(super) key_exchange: Text<'a>,
}

impl<'a> RawTls<'a> {
    fn read(walk: &mut Walk<'a>) -> Result<Option<Self>, Unexpected> {
        if walk.null() {
            return Ok(None);
        }
        let mut tls = Self::default();
        walk.members(|walk, name| {
            let member = match name {
                "tlsVersion" => &mut tls.tls_version,
                "cipherSuite" => &mut tls.cipher_suite,
                "keyExchange" => &mut tls.key_exchange,
                _ => return walk.skip(),
            };
            *member = Text::read(walk)?;
            Ok(())
        })?;
        Ok(Some(tls))
    }
}
