//! `tls_server_config` of the web configuration: its keys, what rustls has of what Go has, and the server's TLS that
//! comes of it.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use serde::Deserialize;

use super::client_certificates::{self, Policy};
use super::stamps::Stamps;
use super::web_config::{Problems, Tls};

/// The keys as they are written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Keys {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    client_ca_file: Option<String>,
    client_auth_type: Option<String>,
    client_allowed_sans: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<String>>,
}

/// The private key may stand here.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Go's names of the cipher suites that rustls has. Those of TLS 1.3 are always there, as in Go.
const SUITES: [(&str, SupportedCipherSuite); 9] = [
    (
        "TLS_AES_256_GCM_SHA384",
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Those that HTTP/2 demands one of, below TLS 1.3.
const HTTP2_SUITES: [&str; 2] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
];

/// Go's names of the key exchanges that rustls has, in the order of preference without `curve_preferences`.
const CURVES: [(&str, &dyn SupportedKxGroup); 4] = [
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("X25519", kx_group::X25519),
    ("CurveP256", kx_group::SECP256R1),
    ("CurveP384", kx_group::SECP384R1),
];

const VERSIONS: [(&str, &SupportedProtocolVersion); 2] =
    [("TLS12", &version::TLS12), ("TLS13", &version::TLS13)];

/// The keys that switch TLS on are not empty.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl Keys {
    /// Whether there is to be TLS at all: versions, cipher suites and curves alone do not ask for it.
    pub(super) fn is_enabled(&self) -> bool {
        let keys = [
            &self.cert,
            &self.key,
            &self.cert_file,
            &self.key_file,
            &self.client_ca,
            &self.client_ca_file,
            &self.client_auth_type,
        ];
        keys.into_iter().any(|key| given(key).is_some())
    }

    /// What is wrong whether or not there is to be TLS: names that rustls does not have.
    pub(super) fn check_names(&self, problems: &mut Problems) {
        self.versions(problems);
        self.suites(problems);
        self.curves(problems);
    }

    /// The server's TLS; `None` with at least one problem.
    pub(super) fn build(
        self,
        folder: &Path,
        http2: bool,
        stamps: &mut Stamps,
        problems: &mut Problems,
    ) -> Option<Tls> {
        let certificates = self.certificates(folder, stamps, problems);
        let key = self.private_key(folder, stamps, problems);
        let policy = self.policy(problems);
        let roots = self.client_roots(folder, stamps, problems);
        // `check_names` told of these already.
        let mut own = Problems::default();
        let (versions, suites) = (self.versions(&mut own), self.suites(&mut own));
        let curves = self.curves(&mut own);
        let listed = self.cipher_suites.as_deref().unwrap_or_default();
        let old = versions.contains(&&version::TLS12);
        if http2
            && old
            && !listed.is_empty()
            && !listed
                .iter()
                .any(|name| HTTP2_SUITES.contains(&name.as_str()))
        {
            let needed = HTTP2_SUITES.join(" or ");
            let rule = format!("HTTP/2 needs {needed}; or set http_server_config.http2 to false");
            problems.bare("tls_server_config.cipher_suites", &rule);
        }
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites,
            kx_groups: curves,
            ..aws_lc_rs::default_provider()
        });
        let policy = policy?;
        let verifier = client_certificates::verifier(
            policy,
            roots?,
            self.client_allowed_sans.clone(),
            &provider,
            problems,
        );
        if !own.0.is_empty() {
            return None;
        }
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let builder = match builder {
            Ok(builder) => builder,
            Err(error) => {
                problems.bare("tls_server_config", &error.to_string());
                return None;
            }
        };
        let asks = verifier.is_some();
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = match builder.with_single_cert(certificates?, key?) {
            Ok(server) => server,
            Err(error) => {
                let rule = format!("certificate and key cannot be used together: {error}");
                problems.bare("tls_server_config", &rule);
                return None;
            }
        };
        server.ignore_client_order = self.prefer_server_cipher_suites.unwrap_or(true);
        if http2 {
            server.alpn_protocols.push(b"h2".to_vec());
        }
        server.alpn_protocols.push(b"http/1.1".to_vec());
        if asks {
            // A session that is resumed is not verified again.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Some(Tls {
            server: Arc::new(server),
            wants_certificates: policy.required,
            verifies_certificates: policy.required && policy.verified,
            wants_names: self.client_allowed_sans.is_some(),
        })
    }

    fn certificates(
        &self,
        folder: &Path,
        stamps: &mut Stamps,
        problems: &mut Problems,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let place = ("cert", &self.cert, &self.cert_file);
        let Some((key, pem)) = contents(place, folder, stamps, problems) else {
            if given(&self.cert).is_none() && given(&self.cert_file).is_none() {
                problems.bare("tls_server_config", "missing one of cert or cert_file");
            }
            return None;
        };
        all_certificates(&key, &pem, problems)
    }

    fn private_key(
        &self,
        folder: &Path,
        stamps: &mut Stamps,
        problems: &mut Problems,
    ) -> Option<PrivateKeyDer<'static>> {
        let place = ("key", &self.key, &self.key_file);
        let Some((key, pem)) = contents(place, folder, stamps, problems) else {
            if given(&self.key).is_none() && given(&self.key_file).is_none() {
                problems.bare("tls_server_config", "missing one of key or key_file");
            }
            return None;
        };
        let private = PrivateKeyDer::from_pem_slice(&pem);
        if private.is_err() {
            problems.bare(&key, "holds no private key in PEM, or an encrypted one");
        }
        private.ok()
    }

    fn policy(&self, problems: &mut Problems) -> Option<Policy> {
        let name = given(&self.client_auth_type).unwrap_or("NoClientCert");
        let policy = Policy::named(name);
        if policy.is_none() {
            let rule = format!("must be {}", Policy::NAMES.join(", "));
            problems.of("tls_server_config.client_auth_type", name, &rule);
            return None;
        }
        let policy = policy?;
        if self.client_allowed_sans.is_some() && !policy.required {
            let rule = "requires client_auth_type to be RequireAnyClientCert or RequireAndVerifyClientCert";
            problems.bare("tls_server_config.client_allowed_sans", rule);
        }
        Some(policy)
    }

    /// The CAs of clients; `Some(None)` where none are named.
    fn client_roots(
        &self,
        folder: &Path,
        stamps: &mut Stamps,
        problems: &mut Problems,
    ) -> Option<Option<RootCertStore>> {
        let place = ("client_ca", &self.client_ca, &self.client_ca_file);
        if given(&self.client_ca).is_none() && given(&self.client_ca_file).is_none() {
            return Some(None);
        }
        let (key, pem) = contents(place, folder, stamps, problems)?;
        let mut roots = RootCertStore::empty();
        for certificate in all_certificates(&key, &pem, problems)? {
            if let Err(error) = roots.add(certificate) {
                problems.bare(
                    &key,
                    &format!("holds a certificate that cannot be a CA: {error}"),
                );
                return None;
            }
        }
        Some(Some(roots))
    }

    fn versions(&self, problems: &mut Problems) -> Vec<&'static SupportedProtocolVersion> {
        let mut place = |key: &str, text: &Option<String>, default: usize| {
            let Some(name) = given(text) else {
                return default;
            };
            let known = VERSIONS.iter().position(|(known, _)| *known == name);
            if known.is_none() {
                let rule = match name {
                    "TLS10" | "TLS11" => "rustls does not speak it; must be TLS12 or TLS13",
                    _ => "unknown TLS version; must be TLS12 or TLS13",
                };
                problems.of(&format!("tls_server_config.{key}"), name, rule);
            }
            known.unwrap_or(default)
        };
        let first = place("min_version", &self.min_version, 0);
        let last = place("max_version", &self.max_version, VERSIONS.len() - 1);
        if first > last {
            let rule = "must not be above max_version";
            problems.of("tls_server_config.min_version", VERSIONS[first].0, rule);
        }
        let chosen = VERSIONS.iter().enumerate();
        let chosen = chosen.filter(|(place, _)| (first..=last).contains(place));
        chosen.map(|(_, (_, version))| *version).collect()
    }

    /// All of TLS 1.3, and of TLS 1.2 those that are listed, in that order; without a list, all.
    fn suites(&self, problems: &mut Problems) -> Vec<SupportedCipherSuite> {
        let names = self.cipher_suites.as_deref().unwrap_or_default();
        let mut listed = Vec::new();
        for (place, name) in names.iter().enumerate() {
            if let Some((_, suite)) = SUITES.iter().find(|(known, _)| known == name) {
                listed.push(*suite);
                continue;
            }
            let rule = if name.contains("_CBC_") || name.starts_with("TLS_RSA_") {
                "rustls does not have it"
            } else {
                "unknown cipher"
            };
            let has = SUITES.map(|(known, _)| known).join(", ");
            let key = format!("tls_server_config.cipher_suites[{place}]");
            problems.of(&key, name, &format!("{rule}; may be {has}"));
        }
        let all = SUITES.map(|(_, suite)| suite);
        let (new, old): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|suite| suite.tls13().is_some());
        let old = if names.is_empty() { old } else { listed };
        let old = old.into_iter().filter(|suite| suite.tls13().is_none());
        new.into_iter().chain(old).collect()
    }

    fn curves(&self, problems: &mut Problems) -> Vec<&'static dyn SupportedKxGroup> {
        let names = self.curve_preferences.as_deref().unwrap_or_default();
        let mut listed = Vec::new();
        for (place, name) in names.iter().enumerate() {
            if let Some((_, group)) = CURVES.iter().find(|(known, _)| known == name) {
                listed.push(*group);
                continue;
            }
            let rule = match name.as_str() {
                "CurveP521" => "rustls does not have it",
                _ => "unknown curve",
            };
            let has = CURVES.map(|(known, _)| known).join(", ");
            let key = format!("tls_server_config.curve_preferences[{place}]");
            problems.of(&key, name, &format!("{rule}; may be {has}"));
        }
        if names.is_empty() {
            listed.extend(CURVES.map(|(_, group)| group));
        }
        listed
    }
}

/// What a key or its `…_file` holds, and which of the two. A file goes before.
fn contents(
    (key, inline, file): (&str, &Option<String>, &Option<String>),
    folder: &Path,
    stamps: &mut Stamps,
    problems: &mut Problems,
) -> Option<(String, Vec<u8>)> {
    if let Some(file) = given(file) {
        let key = format!("tls_server_config.{key}_file");
        return match stamps.read(&folder.join(file)) {
            Ok(pem) => Some((key, pem)),
            Err(error) => {
                problems.of(&key, file, &format!("cannot be read: {error}"));
                None
            }
        };
    }
    let pem = given(inline)?.as_bytes().to_vec();
    Some((format!("tls_server_config.{key}"), pem))
}

/// What is wrong with a PEM, without its content.
fn why(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no line `-----END …-----`",
        pem::Error::IllegalSectionStart { .. } => "a line `-----BEGIN …` is not whole",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::SectionTooLarge => "a section is too large",
        _ => "it cannot be read",
    }
}

/// All certificates of a PEM, at least one.
fn all_certificates(
    key: &str,
    pem: &[u8],
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            problems.bare(key, "holds no certificate in PEM");
            None
        }
        Ok(certificates) => Some(certificates),
        Err(error) => {
            problems.bare(key, &format!("is no PEM: {}", why(&error)));
            None
        }
    }
}
