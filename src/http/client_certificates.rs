//! Certificates of clients: who must show one, whose are good, and the names that they must hold.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::web_config::Problems;

/// What `client_auth_type` says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    name: &'static str,
    /// Whether a certificate is asked for.
    asked: bool,
    /// Whether there is no connection without one.
    pub(super) required: bool,
    /// Whether it must come from one of the CAs.
    pub(super) verified: bool,
}

impl Policy {
    /// All names, but one that is kept for old files.
    pub(super) const NAMES: [&str; 5] = [
        "NoClientCert",
        "RequestClientCert",
        "RequireAnyClientCert",
        "VerifyClientCertIfGiven",
        "RequireAndVerifyClientCert",
    ];

    /// The policy of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = match name {
            "RequireClientCert" => "RequireAnyClientCert",
            name => name,
        };
        let name = Self::NAMES.into_iter().find(|known| *known == name)?;
        Some(Self {
            name,
            asked: name != "NoClientCert",
            required: name.starts_with("Require"),
            verified: name.contains("Verify"),
        })
    }
}

/// What verifies clients by `policy`; `None` where none is asked for a certificate, or with a problem.
pub(super) fn verifier(
    policy: Policy,
    roots: Option<RootCertStore>,
    names: Option<Vec<String>>,
    provider: &Arc<CryptoProvider>,
    problems: &mut Problems,
) -> Option<Arc<dyn ClientCertVerifier>> {
    if !policy.asked {
        if roots.is_some() {
            let rule =
                "a client CA is configured without a client_auth_type that asks for certificates";
            problems.bare("tls_server_config.client_auth_type", rule);
        }
        return None;
    }
    let by = if policy.verified {
        let Some(roots) = roots else {
            let rule = "needs client_ca or client_ca_file; the CAs of the host are not trusted unless they are named";
            problems.of("tls_server_config.client_auth_type", policy.name, rule);
            return None;
        };
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        match builder.build() {
            Ok(by) => Some(by),
            Err(error) => {
                problems.bare("tls_server_config.client_ca", &error.to_string());
                return None;
            }
        }
    } else {
        None
    };
    Some(Arc::new(Verifier {
        by,
        required: policy.required,
        names,
        algorithms: provider.signature_verification_algorithms,
    }))
}

/// A certificate with none of the names that are let in.
#[derive(Debug, Error)]
#[error("none of its names is in client_allowed_sans: {}", .0.iter().take(SHOWN).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "))]
struct Unwanted(Vec<String>);

/// So many names of an unwanted certificate are shown.
const SHOWN: usize = 5;

/// Looks at certificates as Go does for each policy. That the client has the private key is always proven.
#[derive(Debug)]
struct Verifier {
    /// What verifies them against the CAs; without it any is good.
    by: Option<Arc<dyn ClientCertVerifier>>,
    required: bool,
    /// One of these must stand in it.
    names: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by.as_ref().map_or(&[], |by| by.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if let Some(by) = &self.by {
            by.verify_client_cert(certificate, intermediates, now)?;
        }
        if let Some(allowed) = &self.names {
            let names = names(certificate).ok_or(rustls::Error::InvalidCertificate(
                CertificateError::BadEncoding,
            ))?;
            if !names.iter().any(|name| allowed.contains(name)) {
                let unwanted = OtherError(Arc::new(Unwanted(names)));
                return Err(rustls::Error::InvalidCertificate(CertificateError::Other(
                    unwanted,
                )));
            }
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The subject's alternative names in a certificate that can be allowed: DNS, e-mail, IP and URI.
fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let extension = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()
        .ok()?;
    let Some((_, names)) = extension else {
        return Some(Vec::new());
    };
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(name)
        | GeneralName::Rfc822Name(name)
        | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|ip| ip.to_string()),
        _ => None,
    };
    Some(names.0.iter().filter_map(name).collect())
}

/// An IP address as a certificate holds it; IPv4 in IPv6 is IPv4, as Go writes it.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| sixteen()).ok().map(|ip| ip.to_canonical())
}
