//! A trail made by hand, with fixed names and times: what each record comes to can be told in advance.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

pub const ACCOUNTS: [&str; 3] = ["111122223333", "444455556666", "777788889999"];

/// Settings under which times long ago are in the window and every run lasts.
pub const LONG_WINDOW: &str =
    "[window]\nlength = \"9000d\"\n[regression]\nquiet_period = \"9000d\"";

/// A name that every escape is needed for.
pub const ODD_NAME: &str = "Get \"Odd\"\\ Name\nin {two} lines, #1";

/// A user agent that every escape is needed for.
pub const ODD_AGENT: &str = "aws-sdk-java/1.7.4 \"Odd\"\\ agent\nin {two} lines, #1";

/// Calls in [`deliver_golden`], each counted once.
pub const GOLDEN_CALLS: f64 = 16.0;

/// `tlsDetails` with a version, a cipher suite and, unless it is empty, a key exchange.
pub fn tls(version: &str, cipher: &str, exchange: &str) -> Value {
    let mut details = json!({"tlsVersion": version, "cipherSuite": cipher});
    if !exchange.is_empty() {
        details["keyExchange"] = json!(exchange);
    }
    details
}

/// One file of a trail: an account's calls in a region, delivered at a time.
pub struct File {
    account: &'static str,
    region: &'static str,
    delivered: &'static str,
    records: Vec<Value>,
}

impl File {
    /// A file without records; `delivered` is as in its name, `20250303T1005Z`.
    pub fn new(account: &'static str, region: &'static str, delivered: &'static str) -> Self {
        let records = Vec::new();
        Self {
            account,
            region,
            delivered,
            records,
        }
    }

    /// Adds one call, a minute before the delivery. `details` is its `tlsDetails`; null leaves them out.
    pub fn call(mut self, service: &str, event: &str, details: &Value) -> Self {
        let at = |from, to| self.delivered.get(from..to).unwrap();
        let minute: u32 = at(11, 13).parse().unwrap();
        let (year, month, day, hour) = (at(0, 4), at(4, 6), at(6, 8), at(9, 11));
        let mut record = json!({
            "eventVersion": "1.11",
            "userIdentity": {"type": "AssumedRole", "accountId": self.account},
            "eventTime": format!("{year}-{month}-{day}T{hour}:{:02}:00Z", minute - 1),
            "eventSource": format!("{service}.amazonaws.com"),
            "eventName": event,
            "awsRegion": self.region,
            "eventID": format!("{}-{:04}", self.name(), self.records.len()),
            "eventType": "AwsApiCall",
            "recipientAccountId": self.account,
        });
        if !details.is_null() {
            record["tlsDetails"] = details.clone();
        }
        self.records.push(record);
        self
    }

    /// The last call is by a session of a role.
    pub fn by(mut self, role: &str, user_agent: &str) -> Self {
        let account = self.account;
        let record = self.records.last_mut().unwrap();
        record["userAgent"] = json!(user_agent);
        record["userIdentity"]["sessionContext"] = json!({"sessionIssuer": {
            "type": "Role", "arn": format!("arn:aws:iam::{account}:role/{role}"),
        }});
        self
    }

    /// Adds the last record once more, as CloudTrail may.
    pub fn again(mut self) -> Self {
        self.records.extend(self.records.last().cloned());
        self
    }

    /// Writes it into CloudTrail's layout below `root`. What it has on the disk does not depend on the
    /// version of the compressor.
    pub fn deliver(self, root: &Path) {
        let at = |from, to| self.delivered.get(from..to).unwrap();
        let day = format!("{}/{}/{}", at(0, 4), at(4, 6), at(6, 8));
        let folder = root
            .join(format!("AWSLogs/{}/CloudTrail", self.account))
            .join(self.region)
            .join(day);
        fs::create_dir_all(&folder).unwrap();
        let mut file = GzEncoder::new(Vec::new(), Compression::none());
        write!(file, "{}", json!({"Records": self.records})).unwrap();
        let path = folder.join(format!("{}.json.gz", self.name()));
        let part = path.with_extension("part");
        fs::write(&part, file.finish().unwrap()).unwrap();
        fs::rename(part, path).unwrap();
    }

    fn name(&self) -> String {
        let Self {
            account,
            region,
            delivered,
            ..
        } = self;
        format!("{account}_CloudTrail_{region}_{delivered}_AAAAAAAAAAAAAAAA")
    }
}

/// The trail of the golden files: outdated, modern and post-quantum calls, calls that tell nothing or a part,
/// names that must be escaped or cut, a record delivered twice, a clean account, and one that tells nothing.
pub fn deliver_golden(root: &Path) {
    let [mixed, clean, mute] = ACCOUNTS;
    let post_quantum = tls("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768");
    let modern = tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "x25519");
    let tls12 = tls("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "secp256r1");
    let legacy = tls("TLSv1.1", "ECDHE-RSA-AES128-SHA", "");
    let long = |end: &str| format!("{}é{end}", "Long".repeat(49) + "abc");
    File::new(mixed, "eu-west-1", "20250303T1005Z")
        .call("s3", "GetObject", &post_quantum)
        .call("s3", "GetObject", &post_quantum)
        .call("s3", "GetObject", &post_quantum)
        .call("s3", "GetObject", &legacy)
        .call("s3", "GetObject", &legacy)
        .by("payroll-batch", ODD_AGENT)
        .again()
        .call("s3", "PutObject", &tls12)
        .call("sts", "AssumeRole", &Value::Null)
        .deliver(root);
    File::new(mixed, "us-east-1", "20250303T1110Z")
        .call("dynamodb", "PutItem", &tls("TLSv1", "AES128-SHA", ""))
        .call("iam", ODD_NAME, &tls12)
        // Cut at 200 bytes, in the middle of the é, they are the same.
        .call("ec2", &long("One"), &modern)
        .call("ec2", &long("Other"), &modern)
        .call(
            "health",
            "DescribeEvents",
            &json!({"clientProvidedHostHeader": "health.us-east-1.amazonaws.com"}),
        )
        .call(
            "kms",
            "Decrypt",
            &tls("TLSv1.4", "TLS_NEW", "X448MLKEM1024"),
        )
        .deliver(root);
    File::new(clean, "eu-west-1", "20250303T1310Z")
        .call("s3", "GetObject", &post_quantum)
        .call("kms", "Decrypt", &modern)
        .deliver(root);
    File::new(mute, "eu-west-1", "20250303T1320Z")
        .call("sts", "AssumeRole", &Value::Null)
        .deliver(root);
}

/// One file with calls of as many names, each so long that a scrape of some thousands fills every buffer of a
/// connection.
pub fn deliver_many(root: &Path, names: u32) {
    let legacy = tls("TLSv1.1", "ECDHE-RSA-AES128-SHA", "");
    let mut file = File::new(ACCOUNTS[0], "eu-west-1", "20250303T1005Z");
    for number in 0..names {
        let name = format!("{number:06}{}", "LongName".repeat(23));
        file = file.call("s3", &name, &legacy);
    }
    file.deliver(root);
}
