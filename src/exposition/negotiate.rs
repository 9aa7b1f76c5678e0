//! Which format and encoding a scraper gets, by its `Accept` and `Accept-Encoding` (RFC 9110, part 12).

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format that `accept` prefers. Text where it says nothing we serve: a scraper that asks for
    /// something else gets what every scraper reads.
    pub fn accepted(accept: &str) -> Self {
        let quality = |format| {
            preferences(accept)
                .filter(|wanted| serves(format, wanted))
                .map(specificity)
                .max()
        };
        let weight = |format| quality(format).map_or(0, |(_, weight)| weight);
        if weight(Self::OpenMetrics) > weight(Self::Text) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// Whether `accept_encoding` allows gzip and does not prefer to go without.
pub fn gzip_accepted(accept_encoding: &str) -> bool {
    let weight = |coding: &str| {
        preferences(accept_encoding)
            .find(|wanted| wanted.name.eq_ignore_ascii_case(coding))
            .map(|wanted| wanted.weight)
    };
    let any = weight("*");
    let gzip = weight("gzip").or(weight("x-gzip")).or(any).unwrap_or(0);
    gzip > 0 && gzip >= weight("identity").unwrap_or(0)
}

/// One entry of an `Accept` header.
#[derive(Clone, Copy)]
struct Preference<'a> {
    name: &'a str,
    parameters: &'a str,
    /// The q-value in thousandths.
    weight: u16,
}

impl<'a> Preference<'a> {
    fn parameter(&self, name: &str) -> Option<&'a str> {
        parameters(self.parameters)
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

fn preferences(header: &str) -> impl Iterator<Item = Preference<'_>> {
    header.split(',').map(|entry| {
        let (name, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        let mut preference = Preference {
            name: name.trim(),
            parameters,
            weight: 1000,
        };
        preference.weight = preference.parameter("q").map_or(1000, thousandths);
        preference
    })
}

fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        Some((key.trim(), value.trim().trim_matches('"')))
    })
}

/// Reads a q-value; what is none counts as 0, so that nonsense asks for nothing.
fn thousandths(value: &str) -> u16 {
    match value.split_once('.').unwrap_or((value, "")) {
        ("0", digits) if digits.len() <= 3 => format!("{digits:0<3}").parse().unwrap_or(0),
        ("1", digits) if digits.len() <= 3 && digits.bytes().all(|digit| digit == b'0') => 1000,
        _ => 0,
    }
}

fn serves(format: Format, wanted: &Preference<'_>) -> bool {
    let version = wanted.parameter("version");
    let is = |name: &str| wanted.name.eq_ignore_ascii_case(name);
    match format {
        Format::OpenMetrics if is("application/openmetrics-text") => {
            matches!(version, None | Some("1.0.0" | "0.0.1"))
        }
        Format::OpenMetrics => is("application/*"),
        Format::Text if is("text/plain") => matches!(version, None | Some("0.0.4")),
        Format::Text => is("text/*") || is("*/*"),
    }
}

/// An entry counts by how exactly it names the format, then by its weight.
fn specificity(wanted: Preference<'_>) -> (u8, u16) {
    let exact = match wanted.name {
        "*/*" => 0,
        name if name.ends_with("/*") => 1,
        _ => 2,
    };
    (exact, wanted.weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_format_is_served_and_text_when_in_doubt() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let protobuf_first = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,text/plain;version=0.0.4;q=0.6";
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Format::Text,
            ),
            (prometheus_2, Format::OpenMetrics),
            (prometheus_3, Format::OpenMetrics),
            (protobuf_first, Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"; q=1.0",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.3, text/plain;q=0.7",
                Format::Text,
            ),
            (
                "application/openmetrics-text;q=0.7, text/plain;q=0.3",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.5, text/plain;q=0.5",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0, */*;q=0.1", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=nonsense", Format::Text),
            (
                "text/plain;q=0, application/openmetrics-text;q=0.001",
                Format::OpenMetrics,
            ),
            (";;,=,q=", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn gzip_is_used_when_it_is_allowed_and_not_worse_than_identity() {
        for (header, expected) in [
            ("", false),
            ("gzip", true),
            ("GZIP;q=1", true),
            ("gzip, deflate, br", true),
            ("deflate, br", false),
            ("gzip;q=0", false),
            ("gzip;q=0.0, *", false),
            ("*", true),
            ("*;q=0", false),
            ("identity", false),
            ("identity;q=1, gzip;q=0.5", false),
            ("identity;q=0.5, gzip", true),
        ] {
            assert_eq!(gzip_accepted(header), expected, "{header:?}");
        }
    }
}
