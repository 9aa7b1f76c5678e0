//! Time as this program counts it: whole seconds since the epoch, UTC. Reads no clock but in
//! [`Timestamp::now`], which only workers and commands call.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The last second that RFC 3339 can write: later times, which only broken data have, are written as this one.
const LAST: u64 = 253_402_300_799;

/// Whole seconds since the epoch, UTC. CloudTrail's own times have no finer grain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `secs` seconds after the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs)
    }

    /// Seconds since the epoch.
    pub const fn secs(self) -> i64 {
        self.0
    }

    /// The host's clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Reads RFC 3339 text in UTC, as in `eventTime`; fractions of a second are cut off.
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_rfc3339(text).ok().map(Self::from)
    }

    /// Reads the `YYYYMMDDTHHmm` of a log file's name, in UTC.
    pub fn parse_compact(text: &str) -> Option<Self> {
        let field = |from: usize, to: usize| text.get(from..to);
        if text.len() != 13
            || !text.bytes().enumerate().all(|(at, b)| {
                if at == 8 {
                    b == b'T'
                } else {
                    b.is_ascii_digit()
                }
            })
        {
            return None;
        }
        let (year, month, day) = (field(0, 4)?, field(4, 6)?, field(6, 8)?);
        let (hour, minute) = (field(9, 11)?, field(11, 13)?);
        Self::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:00Z"))
    }

    /// The start of the step of `length` that holds this time, on the grid that starts at the epoch.
    pub fn floor(self, length: Duration) -> Self {
        let length = seconds(length).max(1);
        Self(self.0.saturating_sub(self.0.rem_euclid(length)))
    }

    /// This time and `span` more.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(seconds(span)))
    }

    /// This time less `span`.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(seconds(span)))
    }

    /// How long `earlier` is ago at this time; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(seconds(after)),
            Err(before) => Self(-seconds(before.duration())),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = u64::try_from(self.0).unwrap_or(0).min(LAST);
        let time = UNIX_EPOCH + Duration::from_secs(secs);
        write!(f, "{}", humantime::format_rfc3339_seconds(time))
    }
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_times_are_read_to_the_second() {
        assert_eq!(
            Timestamp::parse("2023-07-10T11:42:11Z"),
            Some(Timestamp(1_688_989_331))
        );
        assert_eq!(
            Timestamp::parse("2023-07-10T11:42:11.987Z"),
            Some(Timestamp(1_688_989_331))
        );
        assert_eq!(Timestamp::parse("2023-07-10 11:42"), None);
        assert_eq!(Timestamp::parse(""), None);
    }

    #[test]
    fn the_time_in_a_file_name_is_read() {
        assert_eq!(
            Timestamp::parse_compact("20230710T1145"),
            Timestamp::parse("2023-07-10T11:45:00Z")
        );
        for bad in [
            "20230710T114",
            "20231310T1145",
            "2023-710T1145",
            "20230710 1145",
            "２0230710T11",
        ] {
            assert_eq!(Timestamp::parse_compact(bad), None, "{bad}");
        }
    }

    #[test]
    fn floor_is_on_the_grid_of_the_epoch_before_and_after_it() {
        let minute = Duration::from_secs(60);
        assert_eq!(Timestamp(119).floor(minute), Timestamp(60));
        assert_eq!(Timestamp(120).floor(minute), Timestamp(120));
        assert_eq!(Timestamp(-1).floor(minute), Timestamp(-60));
        assert_eq!(Timestamp(i64::MIN).floor(minute), Timestamp(i64::MIN));
    }

    #[test]
    fn times_that_no_calendar_has_are_written_all_the_same() {
        for (secs, text) in [
            (i64::MIN, "1970-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "9999-12-31T23:59:59Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(secs).to_string(), text);
        }
    }
}
