//! Certificates made for one test, and curl as the client that shows or verifies them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, string::Ia5String,
};

/// A CA of its own.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Ca {
    /// Makes one; its certificate is `name.crt`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder: folder.to_owned(),
        }
    }

    /// Issues a certificate with these alternative names into `name.crt` and `name.key`.
    pub(crate) fn issue(&self, name: &str, alternatives: &[SanType]) {
        let mut params = named(name);
        params.subject_alt_names = alternatives.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        fs::write(file("crt"), certificate.pem()).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(ascii(name))
}

pub(crate) fn uri(uri: &str) -> SanType {
    SanType::URI(ascii(uri))
}

pub(crate) fn email(address: &str) -> SanType {
    SanType::Rfc822Name(ascii(address))
}

pub(crate) fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

fn ascii(text: &str) -> Ia5String {
    Ia5String::try_from(text).unwrap()
}

/// `ca.crt`, and a certificate and key of the server at 127.0.0.1 and of a client, in `folder`.
pub(crate) fn deliver(folder: &Path) -> Ca {
    let ca = Ca::new(folder, "ca");
    ca.issue("server", &[dns("localhost"), ip("127.0.0.1")]);
    ca.issue("client", &[dns("client.example.org")]);
    ca
}

/// What curl got, or why it got nothing.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) code: i32,
    /// The answers' heads and bodies, and what was asked for with `-w`.
    pub(crate) out: String,
    /// With `-v`: the handshake.
    pub(crate) told: String,
}

impl Got {
    pub(crate) fn has(&self, text: &str) -> bool {
        self.out.to_lowercase().contains(&text.to_lowercase())
    }

    /// The status of the last answer.
    pub(crate) fn status(&self) -> Option<u16> {
        let lines = self.out.lines().rev();
        let mut statuses = lines.filter(|line| line.starts_with("HTTP/"));
        statuses.next()?.split(' ').nth(1)?.parse().ok()
    }
}

/// Runs curl in `folder`, where `ca.crt` is.
pub(crate) fn curl(folder: &Path, arguments: &[&str]) -> Got {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "60"])
        .args(["--cacert", "ca.crt"])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .output()
        .expect("Debian's package `curl` is installed by tests/run");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Got {
        code: output.status.code().expect("no signal"),
        out: text(output.stdout),
        told: text(output.stderr),
    }
}
