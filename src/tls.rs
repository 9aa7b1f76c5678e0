//! What a CloudTrail record tells of the connection: closed sets of labels, each with a way out
//! for values that this build does not know.

use serde::{Deserialize, Serialize};

/// The TLS version of an API call, as far as its record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.0, which CloudTrail spells `TLSv1`.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
    /// The record has no `tlsDetails.tlsVersion`: normal for a call that an AWS service made.
    None,
    /// A value this build does not know. Counted, never dropped, so that it shows on the graph.
    Unknown,
}

impl TlsVersion {
    /// Every value, oldest version first.
    pub const ALL: [Self; 6] = [
        Self::Tls10,
        Self::Tls11,
        Self::Tls12,
        Self::Tls13,
        Self::None,
        Self::Unknown,
    ];

    /// Reads `tlsDetails.tlsVersion`; an empty text is an absent one.
    pub fn from_record(value: Option<&str>) -> Self {
        match value {
            None | Some("") => Self::None,
            Some("TLSv1") => Self::Tls10,
            Some("TLSv1.1") => Self::Tls11,
            Some("TLSv1.2") => Self::Tls12,
            Some("TLSv1.3") => Self::Tls13,
            Some(_) => Self::Unknown,
        }
    }

    /// The value of the `tls_version` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls10 => "TLSv1",
            Self::Tls11 => "TLSv1.1",
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }

    /// Reads a label back; `None` if it is none of ours.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.label() == label)
    }

    /// Whether this is a version, and one below `minimum`.
    pub fn outdated(self, minimum: Self) -> bool {
        self.known() && self < minimum
    }

    /// The labels of the versions below `minimum`.
    pub fn labels_below(minimum: Self) -> impl Iterator<Item = &'static str> {
        let versions = Self::ALL.into_iter();
        let outdated = versions.filter(move |version| version.outdated(minimum));
        outdated.map(Self::label)
    }

    /// Whether a call on this version is a positive control: TLS 1.2 or newer was seen, so the
    /// trail does carry TLS details.
    pub fn control(self) -> bool {
        matches!(self, Self::Tls12 | Self::Tls13)
    }

    /// Whether this is a version, and not the lack of one.
    pub fn known(self) -> bool {
        self <= Self::Tls13
    }
}

/// The key exchange of an API call, as far as its record tells. CloudTrail documents `keyExchange`
/// by example only (`X25519MLKEM768`, `x25519`, `secp256r1`), in changing case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyExchange {
    /// A name this build knows: its place in [`KeyExchange::NAMES`].
    Named(u8),
    /// No `tlsDetails` at all.
    None,
    /// `tlsDetails` without a key exchange, or a source that cannot tell.
    Unreported,
    /// A name this build does not know.
    Other,
    /// A name this build does not know that says ML-KEM: post-quantum.
    OtherPostQuantum,
}

impl KeyExchange {
    /// The names this build knows, in lower case: the named groups of the IANA TLS registry that
    /// AWS endpoints offer or may come to offer.
    pub const NAMES: [&str; 10] = [
        "x25519",
        "x448",
        "secp256r1",
        "secp384r1",
        "secp521r1",
        "x25519mlkem768",
        "secp256r1mlkem768",
        "secp384r1mlkem1024",
        "x25519kyber768draft00",
        "secp256r1kyber768draft00",
    ];

    /// Every value.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).map(Self::Named).take(Self::NAMES.len()).chain([
            Self::None,
            Self::Unreported,
            Self::Other,
            Self::OtherPostQuantum,
        ])
    }

    /// Reads `tlsDetails.keyExchange` of a record that has `tlsDetails`.
    pub fn from_record(value: Option<&str>) -> Self {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Self::Unreported;
        };
        let known = (0_u8..)
            .zip(Self::NAMES)
            .find(|(_, name)| name.eq_ignore_ascii_case(value));
        match known {
            Some((place, _)) => Self::Named(place),
            None if post_quantum_name(&value.to_ascii_lowercase()) => Self::OtherPostQuantum,
            None => Self::Other,
        }
    }

    /// The value of the `key_exchange` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Named(place) => Self::NAMES
                .get(usize::from(place))
                .copied()
                .unwrap_or("other"),
            Self::None => "none",
            Self::Unreported => "unreported",
            Self::Other | Self::OtherPostQuantum => "other",
        }
    }

    /// The value of the `post_quantum` label: `yes`, `no`, or `unreported` where the record does
    /// not tell or names what this build does not know.
    pub fn post_quantum(self) -> &'static str {
        match self {
            Self::Named(_) if post_quantum_name(self.label()) => "yes",
            Self::Named(_) => "no",
            Self::OtherPostQuantum => "yes",
            Self::None | Self::Unreported | Self::Other => "unreported",
        }
    }

    /// The text under which the store keeps this value: unlike the label, one for each value.
    pub fn code(self) -> &'static str {
        match self {
            Self::OtherPostQuantum => "other_post_quantum",
            _ => self.label(),
        }
    }

    /// Reads a code back; `None` if it is none of ours.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::all().find(|value| value.code() == code)
    }
}

fn post_quantum_name(lower_case: &str) -> bool {
    lower_case.contains("mlkem") || lower_case.contains("kyber")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_reads_back_as_itself() {
        for version in TlsVersion::ALL {
            assert_eq!(TlsVersion::from_label(version.label()), Some(version));
            if version.known() {
                assert_eq!(TlsVersion::from_record(Some(version.label())), version);
            }
        }
        assert_eq!(TlsVersion::from_record(Some("")), TlsVersion::None);
        assert_eq!(
            TlsVersion::from_record(Some("TLSv1.4")),
            TlsVersion::Unknown
        );
        assert_eq!(TlsVersion::from_record(Some("none")), TlsVersion::Unknown);
    }

    #[test]
    fn only_versions_below_the_minimum_are_outdated() {
        let outdated = |minimum| TlsVersion::ALL.map(|version| version.outdated(minimum));
        assert_eq!(
            outdated(TlsVersion::Tls12),
            [true, true, false, false, false, false]
        );
        assert_eq!(
            outdated(TlsVersion::Tls13),
            [true, true, true, false, false, false]
        );
    }

    #[test]
    fn every_key_exchange_reads_back_from_its_code() {
        for value in KeyExchange::all() {
            assert_eq!(KeyExchange::from_code(value.code()), Some(value));
        }
    }

    #[test]
    fn key_exchanges_are_read_in_any_case_and_told_post_quantum_or_not() {
        let told = |name| {
            let value = KeyExchange::from_record(name);
            (value.label(), value.post_quantum())
        };
        assert_eq!(told(Some("X25519MLKEM768")), ("x25519mlkem768", "yes"));
        assert_eq!(told(Some("x25519")), ("x25519", "no"));
        assert_eq!(told(Some("SecP256r1")), ("secp256r1", "no"));
        assert_eq!(told(Some("X448MLKEM1024")), ("other", "yes"));
        assert_eq!(told(Some("ffdhe2048")), ("other", "unreported"));
        assert_eq!(told(Some("")), ("unreported", "unreported"));
        assert_eq!(told(None), ("unreported", "unreported"));
    }
}
