//! The text of the two formats: HELP and TYPE lines, escaped values.

use std::fmt::Write as _;

use super::negotiate::Format;

/// The type of a family, as far as this program has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// Writes the HELP and TYPE lines of the family `name`. OpenMetrics names a counter's family without
/// the `_total` of its samples.
pub(super) fn head(out: &mut String, name: &str, kind: Kind, help: &str, format: Format) {
    let family = match (format, kind) {
        (Format::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    };
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    let help = help.replace('\\', r"\\").replace('\n', r"\n");
    let help = if format == Format::OpenMetrics {
        help.replace('"', "\\\"")
    } else {
        help
    };
    write!(out, "# HELP {family} {help}\n# TYPE {family} {kind}\n")
        .expect("a String takes all text");
}

/// Appends a label's value, escaped as both formats ask.
pub(super) fn push_escaped(out: &mut String, value: &str) {
    for part in value.split_inclusive(['\\', '"', '\n']) {
        match part.as_bytes().last() {
            Some(b'\\') => out.extend([part, "\\"]),
            Some(b'"') => out.extend([part.strip_suffix('"').unwrap_or(part), "\\\""]),
            Some(b'\n') => out.extend([part.strip_suffix('\n').unwrap_or(part), "\\n"]),
            _ => out.push_str(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let mut out = String::new();
        push_escaped(&mut out, "a\\b\"c\nd\\\\é");
        assert_eq!(out, "a\\\\b\\\"c\\nd\\\\\\\\é");
    }

    #[test]
    fn openmetrics_names_a_counter_without_its_suffix() {
        let mut out = String::new();
        head(
            &mut out,
            "calls_total",
            Kind::Counter,
            "All \"calls\".",
            Format::Text,
        );
        head(
            &mut out,
            "calls_total",
            Kind::Counter,
            "All \"calls\".",
            Format::OpenMetrics,
        );
        let expected = "# HELP calls_total All \"calls\".\n# TYPE calls_total counter\n\
                        # HELP calls All \\\"calls\\\".\n# TYPE calls counter\n";
        assert_eq!(out, expected);
    }
}
