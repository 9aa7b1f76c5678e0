//! Trail files that a test makes, with the truth about them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use cloudtrail_tls_exporter::time::Timestamp;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

/// One record that a test makes.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub service: &'static str,
    pub event: &'static str,
    /// `none` leaves `tlsDetails` out.
    pub version: &'static str,
    pub time: Timestamp,
    pub account: &'static str,
    /// The role and the user agent; a record without them has no `userIdentity`.
    pub caller: Option<(String, String)>,
}

impl Made {
    /// A record with an event id of its own.
    pub fn new(
        service: &'static str,
        event: &'static str,
        version: &'static str,
        time: Timestamp,
    ) -> Self {
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes())
            .into_uuid()
            .to_string();
        Self {
            id,
            service,
            event,
            version,
            time,
            account: "111122223333",
            caller: None,
        }
    }

    /// The same call, of an account, by a session of a role.
    pub fn by(mut self, account: &'static str, role: &str, user_agent: &str) -> Self {
        self.account = account;
        self.caller = Some((role.to_owned(), user_agent.to_owned()));
        self
    }

    /// What the label `principal` should be.
    pub fn principal(&self) -> String {
        let role = self.caller.as_ref().map(|(role, _)| role);
        role.map_or("none".to_owned(), |role| {
            format!("arn:aws:iam::{}:role/{role}", self.account)
        })
    }

    /// One of a few dozen kinds of call.
    pub fn any(random: &mut fastrand::Rng, time: Timestamp) -> Self {
        let service = ["s3", "ec2", "kms", "sts", "iam", "sqs"][random.usize(..6)];
        let event = ["GetObject", "Decrypt", "AssumeRole", "ListUsers"][random.usize(..4)];
        let version = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3", "none"][random.usize(..5)];
        Self::new(service, event, version, time)
    }

    fn json(&self) -> String {
        let tls = match self.version {
            "none" => String::new(),
            version => format!(r#","tlsDetails":{{"tlsVersion":"{version}","cipherSuite":"X"}}"#),
        };
        let caller = self.caller.as_ref().map(|(role, user_agent)| {
            let session = format!("arn:aws:sts::{}:assumed-role/{role}/{}", self.account, self.id);
            let identity = json!({"type": "AssumedRole", "principalId": format!("AROAX:{}", self.id), "arn": session,
                "sessionContext": {"sessionIssuer": {"type": "Role", "arn": self.principal()}}});
            format!(
                r#""userIdentity":{identity},"sourceIPAddress":"198.51.100.7","userAgent":{},"#,
                json!(user_agent)
            )
        });
        format!(
            r#"{{"eventVersion":"1.11",{}"eventTime":"{}","eventSource":"{}.amazonaws.com","eventName":"{}","awsRegion":"eu-west-1","eventID":"{}","recipientAccountId":"{}"{tls}}}"#,
            caller.unwrap_or_default(),
            self.time,
            self.service,
            self.event,
            self.id,
            self.account
        )
    }
}

/// The path of a file as CloudTrail would name it.
pub fn path(root: &Path, delivered: Timestamp, unique: &str) -> PathBuf {
    let text = delivered.to_string();
    let (day, time) = text.split_once('T').unwrap();
    let stamp = format!(
        "{}T{}Z",
        day.replace('-', ""),
        time.split(':').take(2).collect::<String>()
    );
    root.join("AWSLogs/111122223333/CloudTrail/eu-west-1")
        .join(day.replace('-', "/"))
        .join(format!(
            "111122223333_CloudTrail_eu-west-1_{stamp}_{unique}.json.gz"
        ))
}

/// The content of a log file.
pub fn content(records: &[Made]) -> Vec<u8> {
    let records: Vec<String> = records.iter().map(Made::json).collect();
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    write!(file, "{{\"Records\":[{}]}}", records.join(",")).unwrap();
    file.finish().unwrap()
}

/// Writes a log file whole.
pub fn deliver(path: &Path, records: &[Made]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let part = path.with_extension("part");
    File::create(&part)
        .unwrap()
        .write_all(&content(records))
        .unwrap();
    fs::rename(part, path).unwrap();
}

/// What a scrape must say of all `records`, each id counted once.
pub fn truth<'r>(records: impl IntoIterator<Item = &'r Made>) -> BTreeMap<[String; 3], u64> {
    let mut seen = HashSet::new();
    let mut calls = BTreeMap::new();
    for record in records.into_iter().filter(|record| seen.insert(&record.id)) {
        let key = [record.service, record.version, record.event].map(str::to_owned);
        *calls.entry(key).or_default() += 1;
    }
    calls
}
