//! Label values as ranks in alphabetical order: comparing two label sets compares numbers.

use hashbrown::HashMap;

use super::families::Label;
use crate::exposition::text;
use crate::series::OTHER;
use crate::tls::{KeyExchange, TlsVersion};
use crate::totals::{Entry, Totals};

/// The most labels a family has, `source` included.
pub(super) const WIDTH: usize = 8;

/// A label set, as the ranks of its values.
pub(super) type RowKey = [u32; WIDTH];

/// The rank of every label value in alphabetical order, and the values escaped.
pub(super) struct Ranks<'t> {
    by_text: HashMap<&'t str, u32>,
    by_number: Vec<u32>,
    versions: Vec<(TlsVersion, u32)>,
    exchanges: Vec<(KeyExchange, u32, u32)>,
    escaped: Vec<String>,
}

impl<'t> Ranks<'t> {
    /// Ranks over all texts of the totals, and `more`.
    pub(super) fn new(totals: &'t Totals, more: impl Iterator<Item = &'t str>) -> Self {
        let own = TlsVersion::ALL.iter().map(|version| version.label());
        let exchanges =
            KeyExchange::all().flat_map(|exchange| [exchange.label(), exchange.post_quantum()]);
        let sources = totals.sources().map(|(name, _)| &**name);
        let names = totals.texts().iter().map(|name| name.as_str());
        let texts = own.chain(exchanges).chain(sources).chain(names);
        let mut texts: Vec<&'t str> = texts.chain(more).chain([OTHER]).collect();
        texts.sort_unstable();
        texts.dedup();
        let by_text: HashMap<&str, u32> = texts.iter().copied().zip(0..).collect();
        let rank = |text: &str| by_text.get(text).copied().unwrap_or_default();
        Self {
            by_number: totals
                .texts()
                .iter()
                .map(|name| rank(name.as_str()))
                .collect(),
            versions: TlsVersion::ALL
                .map(|version| (version, rank(version.label())))
                .to_vec(),
            exchanges: KeyExchange::all()
                .map(|exchange| {
                    (
                        exchange,
                        rank(exchange.label()),
                        rank(exchange.post_quantum()),
                    )
                })
                .collect(),
            escaped: texts
                .iter()
                .map(|text| {
                    let mut out = String::new();
                    text::push_escaped(&mut out, text);
                    out
                })
                .collect(),
            by_text,
        }
    }

    /// The rank of an entry's value for a label.
    pub(super) fn of(&self, entry: &Entry, label: Label) -> u32 {
        let texts = &entry.texts;
        let number = |text: u32| {
            self.by_number
                .get(text as usize)
                .copied()
                .unwrap_or_default()
        };
        let exchange = || {
            self.exchanges
                .iter()
                .find(|(exchange, ..)| *exchange == texts.key_exchange)
        };
        match label {
            Label::AwsService => number(texts.aws_service),
            Label::EventName => number(texts.event_name),
            Label::CipherSuite => number(texts.cipher_suite),
            Label::AccountId => number(texts.account_id),
            Label::AwsRegion => number(texts.aws_region),
            Label::TlsVersion => {
                let found = self
                    .versions
                    .iter()
                    .find(|(version, _)| *version == texts.tls_version);
                found.map_or(0, |(_, rank)| *rank)
            }
            Label::KeyExchange => exchange().map_or(0, |(_, label, _)| *label),
            Label::PostQuantum => exchange().map_or(0, |(.., post_quantum)| *post_quantum),
            // An entry has no caller.
            Label::Principal | Label::UserAgent | Label::SourceIp => 0,
        }
    }

    /// The label set of these values; the rest of it is empty.
    pub(super) fn key<const N: usize>(&self, texts: [&str; N]) -> RowKey {
        let mut key = RowKey::default();
        for (slot, text) in key.iter_mut().zip(texts) {
            *slot = self.by_text.get(text).copied().unwrap_or_default();
        }
        key
    }

    /// The rank of the value that folded labels have.
    pub(super) fn other(&self) -> u32 {
        self.by_text.get(OTHER).copied().unwrap_or_default()
    }

    /// The value of a rank, escaped.
    pub(super) fn escaped(&self, rank: u32) -> &str {
        self.escaped.get(rank as usize).map_or("", String::as_str)
    }
}
