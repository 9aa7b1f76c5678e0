//! Numbers as query engines write them: in their own floating point, or as text that may be written as 12 or 1.2E1.

/// More than this no bucket has: such a number is broken, and sums of a million of the others fit.
pub const MOST: u64 = 1_000_000_000_000;

/// A count that is text.
pub fn count(text: &str) -> Option<u64> {
    let number = text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        (number >= 0.0).then(|| whole(number))
    });
    number.filter(|number| *number <= MOST)
}

/// A count in floating point, as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, and what is no number is 0"
)]
pub fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_in_either_form_and_nothing_else_is() {
        assert_eq!(count("123"), Some(123));
        assert_eq!(count("1.23E7"), Some(12_300_000));
        assert_eq!(count("1e12"), Some(MOST));
        for bad in ["", "many", "-1", "NaN", "1e300", "18446744073709551615"] {
            assert_eq!(count(bad), None, "{bad}");
        }
        assert_eq!((whole(2.0), whole(f64::NAN), whole(-3.0)), (2, 0, 0));
    }
}
