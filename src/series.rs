//! Which label sets have counters of their own: the limit of a family, kept at the moment when a label set is first
//! seen. What is decided then stands for good, so that no counter ever loses calls to another.

use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_128;

use crate::call::CallKey;
use crate::tls::TlsVersion;

/// The value of labels that are folded.
pub const OTHER: &str = "other";

/// The least limit for each source: what is folded through and through needs room as well.
pub const LEAST: usize = 300;

/// The highest limit: no Prometheus takes more from one target gladly.
pub const MOST: usize = 1_000_000;

/// What the families of calls are labelled with, and how many series a family may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most series of a family.
    pub limit: usize,
    /// Whether `window_calls` and `calls_total` have the label `account_id`.
    pub label_account: bool,
    /// Whether they have the label `aws_region`.
    pub label_region: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limit: 10_000,
            label_account: true,
            label_region: false,
        }
    }
}

/// A family of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// `calls_total`.
    Calls,
    /// `key_exchange_calls_total`.
    KeyExchanges,
}

/// How far a label set is folded: the labels up to this are `other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// It has a series of its own.
    #[default]
    Whole,
    /// `event_name` is folded.
    Event,
    /// And `aws_region`.
    Region,
    /// And `account_id`.
    Account,
    /// And `aws_service`: what is left is the kind of TLS.
    Service,
}

impl Rung {
    /// Every rung, the least folded first.
    pub const ALL: [Self; 5] = [
        Self::Whole,
        Self::Event,
        Self::Region,
        Self::Account,
        Self::Service,
    ];

    /// The number under which the store keeps it.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Reads a number back; `None` if it is none of ours.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.code() == code)
    }
}

/// How far the label set of a key is folded in each family of counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folds {
    /// In `calls_total`.
    pub calls: Rung,
    /// In `key_exchange_calls_total`.
    pub key_exchanges: Rung,
}

impl Folds {
    /// In this family.
    pub fn of(self, counter: Counter) -> Rung {
        match counter {
            Counter::Calls => self.calls,
            Counter::KeyExchanges => self.key_exchanges,
        }
    }
}

/// A label set, as a hash of its source, its labels and their values.
pub type SetId = u128;

/// The series of a family.
#[derive(Debug, Default)]
struct Family {
    series: HashSet<SetId>,
    /// How many of them are of outdated calls.
    outdated: usize,
}

/// What was decided of each label set, and which series there are.
#[derive(Debug)]
pub struct Admissions {
    settings: Settings,
    rungs: HashMap<SetId, Rung>,
    calls: Family,
    key_exchanges: Family,
    /// What was decided and is not stored yet.
    new: Vec<New>,
}

/// A decision, and the series that it made.
#[derive(Debug)]
struct New {
    set: SetId,
    rung: Rung,
    series: Option<(Counter, SetId, bool)>,
}

impl Admissions {
    /// Nothing is decided yet but what is stored.
    pub fn new(settings: Settings, stored: HashMap<SetId, Rung>) -> Self {
        Self {
            settings,
            rungs: stored,
            calls: Family::default(),
            key_exchanges: Family::default(),
            new: Vec::new(),
        }
    }

    /// How far the label sets of a key are folded, decided now if they are seen for the first time.
    pub fn admit(&mut self, source: &str, key: &CallKey, minimum: TlsVersion) -> Folds {
        let outdated = key.tls_version.outdated(minimum);
        Folds {
            calls: self.admit_to(Counter::Calls, source, key, outdated),
            // It does not tell versions apart.
            key_exchanges: self.admit_to(Counter::KeyExchanges, source, key, false),
        }
    }

    /// How far they are folded if that was decided before; the series count from now on.
    pub fn known(&mut self, source: &str, key: &CallKey, minimum: TlsVersion) -> Option<Folds> {
        let mut known = |counter, outdated| {
            let rung = *self
                .rungs
                .get(&self.set(counter, source, key, Rung::Whole))?;
            let series = self.set(counter, source, key, rung);
            self.family(counter).insert(series, outdated);
            Some(rung)
        };
        let calls = known(Counter::Calls, key.tls_version.outdated(minimum));
        let key_exchanges = known(Counter::KeyExchanges, false);
        Some(Folds {
            calls: calls?,
            key_exchanges: key_exchanges?,
        })
    }

    /// What is to be stored with this commit.
    pub fn decided(&self) -> impl Iterator<Item = (SetId, Rung)> {
        self.new.iter().map(|new| (new.set, new.rung))
    }

    /// What was decided is stored.
    pub fn keep(&mut self) {
        self.new.clear();
    }

    /// What was decided and not kept was not stored: its commit failed.
    pub fn roll_back(&mut self) {
        for new in std::mem::take(&mut self.new) {
            self.rungs.remove(&new.set);
            if let Some((counter, series, outdated)) = new.series {
                self.family(counter).remove(series, outdated);
            }
        }
    }

    fn admit_to(&mut self, counter: Counter, source: &str, key: &CallKey, outdated: bool) -> Rung {
        let set = self.set(counter, source, key, Rung::Whole);
        if let Some(rung) = self.rungs.get(&set) {
            return *rung;
        }
        // Only what changes something: a family has not all labels.
        let mut images: Vec<(Rung, SetId)> = Rung::ALL
            .map(|rung| (rung, self.set(counter, source, key, rung)))
            .to_vec();
        images.dedup_by_key(|(_, image)| *image);
        let last = images.len() - 1;
        let none = counter == Counter::Calls && key.tls_version == TlsVersion::None;
        let limit = self.settings.limit;
        let family = self.family(counter);
        let found = images.iter().enumerate().find(|(place, (_, image))| {
            let coarser = last - place;
            coarser == 0
                || family.series.contains(image)
                || family.has_room(counter, limit, coarser, outdated, none && *place == 0)
        });
        let (rung, image) = found.map_or((Rung::Service, set), |(_, found)| *found);
        let made = family.insert(image, outdated);
        self.rungs.insert(set, rung);
        self.new.push(New {
            set,
            rung,
            series: made.then_some((counter, image, outdated)),
        });
        rung
    }

    fn family(&mut self, counter: Counter) -> &mut Family {
        match counter {
            Counter::Calls => &mut self.calls,
            Counter::KeyExchanges => &mut self.key_exchanges,
        }
    }

    /// The label set of a key, folded up to `rung`.
    fn set(&self, counter: Counter, source: &str, key: &CallKey, rung: Rung) -> SetId {
        let labels = &self.settings;
        let folded = |from, text| if rung >= from { OTHER } else { text };
        let service = folded(Rung::Service, key.aws_service.as_str());
        let account = folded(Rung::Account, key.account_id.as_str());
        let mut texts = vec![source, service];
        match counter {
            Counter::Calls => {
                let event = folded(Rung::Event, key.event_name.as_str());
                texts.extend(["tls_version", key.tls_version.label(), event]);
                if labels.label_account {
                    texts.extend(["account_id", account]);
                }
                if labels.label_region {
                    let region = folded(Rung::Region, key.aws_region.as_str());
                    texts.extend(["aws_region", region]);
                }
            }
            Counter::KeyExchanges => {
                let exchange = key.key_exchange;
                let exchange = [exchange.label(), exchange.post_quantum()];
                texts.extend(["key_exchange", account]);
                texts.extend(exchange);
            }
        }
        // 0xff is in no text, so that texts cannot run into each other.
        let mut joined = Vec::new();
        for text in texts {
            joined.extend_from_slice(text.as_bytes());
            joined.push(0xff);
        }
        xxh3_128(&joined)
    }
}

impl Family {
    /// Whether a label set that could be folded `coarser` times more may have a series. Each rung leaves a twentieth of
    /// the limit to what is folded further, and calls that are not outdated leave a fifth to those that are; `none`
    /// makes room first, then other versions.
    fn has_room(
        &self,
        counter: Counter,
        limit: usize,
        coarser: usize,
        outdated: bool,
        first: bool,
    ) -> bool {
        let part = |twentieths: usize| {
            limit * twentieths.saturating_sub(coarser + usize::from(first)) / 20
        };
        let all = self.series.len() < part(20);
        match counter {
            Counter::Calls if !outdated => all && self.series.len() - self.outdated < part(16),
            _ => all,
        }
    }

    /// Whether it is new.
    fn insert(&mut self, series: SetId, outdated: bool) -> bool {
        let new = self.series.insert(series);
        self.outdated += usize::from(new && outdated);
        new
    }

    fn remove(&mut self, series: SetId, outdated: bool) {
        let was = self.series.remove(&series);
        self.outdated -= usize::from(was && outdated);
    }
}
