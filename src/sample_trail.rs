//! A synthetic trail for `demo` and for tests: records in CloudTrail's form, in its folder layout,
//! of accounts, services and callers that do not exist.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::time::Timestamp;

/// The accounts of the trail: documentation numbers, which AWS gives to nobody.
pub const ACCOUNTS: [&str; 3] = ["111122223333", "444455556666", "777788889999"];
/// The regions of the trail.
pub const REGIONS: [&str; 2] = ["eu-central-1", "us-east-1"];
/// The account that the legacy caller calls.
pub const LEGACY_ACCOUNT: &str = ACCOUNTS[1];

/// How far apart the files of the history are.
const HISTORY_STEP: Duration = Duration::from_secs(3 * 3600);
/// How many records a file has.
const RECORDS: std::ops::Range<usize> = 12..40;

/// Event sources, each with some of its calls.
const SERVICES: [(&str, &[&str]); 26] = [
    ("acm", &["DescribeCertificate", "ListCertificates"]),
    ("athena", &["GetQueryExecution", "StartQueryExecution"]),
    ("autoscaling", &["DescribeAutoScalingGroups"]),
    ("cloudformation", &["DescribeStacks", "ListStacks"]),
    ("cloudfront", &["ListDistributions"]),
    ("cloudtrail", &["DescribeTrails", "LookupEvents"]),
    ("dynamodb", &["DescribeTable", "GetItem", "PutItem"]),
    (
        "ec2",
        &[
            "DescribeInstances",
            "DescribeVolumes",
            "RunInstances",
            "DescribeSecurityGroups",
        ],
    ),
    ("ecr", &["BatchGetImage", "GetAuthorizationToken"]),
    ("ecs", &["DescribeServices", "ListTasks"]),
    ("eks", &["DescribeCluster"]),
    (
        "elasticloadbalancing",
        &["DescribeLoadBalancers", "DescribeTargetHealth"],
    ),
    ("events", &["PutEvents"]),
    ("glue", &["GetTable", "GetPartitions"]),
    ("iam", &["GetRole", "ListUsers", "ListRoles"]),
    ("kms", &["Decrypt", "GenerateDataKey"]),
    ("lambda", &["GetFunction20150331v2", "Invoke"]),
    ("logs", &["CreateLogStream", "DescribeLogGroups"]),
    ("monitoring", &["DescribeAlarms", "GetMetricData"]),
    ("rds", &["DescribeDBInstances"]),
    ("route53", &["ListHostedZones"]),
    (
        "s3",
        &["GetObject", "PutObject", "ListBuckets", "GetBucketLocation"],
    ),
    ("secretsmanager", &["GetSecretValue"]),
    ("sns", &["Publish"]),
    ("sqs", &["ReceiveMessage", "SendMessage"]),
    ("sts", &["AssumeRole", "GetCallerIdentity"]),
];

/// A program that calls AWS, and what its connections are like.
struct Caller {
    role: &'static str,
    user_agent: &'static str,
    /// TLS version, cipher suite, and key exchange where the record tells.
    tls: Option<(&'static str, &'static str, Option<&'static str>)>,
}

const CALLERS: [Caller; 5] = [
    Caller {
        role: "checkout-api",
        user_agent: "aws-sdk-rust/1.3.14 ua/2.1 api/kms#1.91.0 os/linux lang/rust#1.95.0",
        tls: Some(("TLSv1.3", "TLS_AES_128_GCM_SHA256", Some("X25519MLKEM768"))),
    },
    Caller {
        role: "reporting",
        user_agent: "Boto3/1.40.12 md/Botocore#1.40.12 ua/2.1 os/linux lang/python#3.13.7",
        tls: Some(("TLSv1.3", "TLS_AES_256_GCM_SHA384", Some("x25519"))),
    },
    Caller {
        role: "warehouse-loader",
        user_agent: "aws-sdk-java/2.25.60 md/io#sync lang/java#17.0.12",
        tls: Some(("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", Some("secp256r1"))),
    },
    Caller {
        role: "deployer",
        user_agent: "APN/1.0 HashiCorp/1.0 Terraform/1.12.2",
        tls: Some(("TLSv1.3", "TLS_AES_128_GCM_SHA256", None)),
    },
    // A call that an AWS service made for the account: no TLS details.
    Caller {
        role: "config-recorder",
        user_agent: "config.amazonaws.com",
        tls: None,
    },
];

const LEGACY: Caller = Caller {
    role: "payroll-batch",
    user_agent: "aws-sdk-java/1.7.4 Linux/2.6.32 Java_HotSpot(TM)_64-Bit_Server_VM/1.7.0_80",
    tls: Some(("TLSv1.1", "ECDHE-RSA-AES128-SHA", None)),
};

/// Writes the trail's files.
#[derive(Debug)]
pub struct SampleTrail {
    root: PathBuf,
    random: Rng,
}

impl SampleTrail {
    /// A trail below `root`, which need not exist. Every trail has the same accounts and callers, and
    /// its own event ids.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            random: Rng::new(),
        }
    }

    /// Writes sparse clean history: a file for each account and region every three hours.
    pub fn write_history(&mut self, from: Timestamp, to: Timestamp) -> io::Result<()> {
        let mut delivered = from;
        while delivered < to {
            self.write_now(delivered, false)?;
            delivered = delivered.plus(HISTORY_STEP);
        }
        Ok(())
    }

    /// Delivers one file for each account and region, and with `legacy` one that a legacy caller is in.
    pub fn write_now(&mut self, now: Timestamp, legacy: bool) -> io::Result<()> {
        for account in ACCOUNTS {
            for region in REGIONS {
                let number = self.random.usize(RECORDS);
                let mut records: Vec<Value> = (0..number)
                    .map(|_| self.modern_record(account, region, now))
                    .collect();
                if legacy && account == LEGACY_ACCOUNT && region == REGIONS[0] {
                    let calls = ["GetObject", "GetObject", "PutObject"];
                    records.extend(
                        calls.map(|call| self.record(account, region, now, &LEGACY, "s3", call)),
                    );
                }
                self.random.shuffle(&mut records);
                self.deliver(account, region, now, records)?;
            }
        }
        Ok(())
    }

    fn modern_record(&mut self, account: &str, region: &str, now: Timestamp) -> Value {
        let (service, calls) = SERVICES[self.random.usize(..SERVICES.len())];
        let call = calls[self.random.usize(..calls.len())];
        let caller = &CALLERS[self.random.usize(..CALLERS.len())];
        self.record(account, region, now, caller, service, call)
    }

    fn record(
        &mut self,
        account: &str,
        region: &str,
        now: Timestamp,
        caller: &Caller,
        service: &str,
        call: &str,
    ) -> Value {
        let Caller {
            role,
            user_agent,
            tls,
        } = caller;
        // CloudTrail delivers some minutes after the call.
        let time = now.minus(Duration::from_secs(self.random.u64(60..600)));
        let identity = match tls {
            Some(_) => json!({
                "type": "AssumedRole",
                "arn": format!("arn:aws:sts::{account}:assumed-role/{role}/session"),
                "accountId": account,
                "sessionContext": {"sessionIssuer": {
                    "type": "Role", "arn": format!("arn:aws:iam::{account}:role/{role}"), "accountId": account,
                }},
            }),
            None => json!({"type": "AWSService", "invokedBy": user_agent}),
        };
        let mut record = json!({
            "eventVersion": "1.11",
            "userIdentity": identity,
            "eventTime": time.to_string(),
            "eventSource": format!("{service}.amazonaws.com"),
            "eventName": call,
            "awsRegion": region,
            "sourceIPAddress": format!("198.51.100.{}", self.random.u8(1..255)),
            "userAgent": user_agent,
            "requestParameters": null,
            "responseElements": null,
            "requestID": self.uuid(),
            "eventID": self.uuid(),
            "readOnly": !["Put", "Run", "Send", "Publish"].iter().any(|verb| call.starts_with(verb)),
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": account,
            "eventCategory": "Management",
        });
        if let Some((version, cipher, exchange)) = tls {
            let host = format!("{service}.{region}.amazonaws.com");
            let mut details = json!({"tlsVersion": version, "cipherSuite": cipher, "clientProvidedHostHeader": host});
            if let Some(exchange) = exchange {
                details["keyExchange"] = json!(exchange);
            }
            record["tlsDetails"] = details;
        }
        record
    }

    fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.random.u128(..).to_be_bytes())
            .into_uuid()
            .to_string()
    }

    fn deliver(
        &mut self,
        account: &str,
        region: &str,
        now: Timestamp,
        records: Vec<Value>,
    ) -> io::Result<()> {
        let text = now.to_string();
        let (day, time) = text.split_once('T').unwrap_or_default();
        let stamp = format!(
            "{}T{}Z",
            day.replace('-', ""),
            time.get(..5).unwrap_or_default().replace(':', "")
        );
        let unique: String = (0..16).map(|_| self.random.alphanumeric()).collect();
        let folder = format!(
            "AWSLogs/{account}/CloudTrail/{region}/{}",
            day.replace('-', "/")
        );
        let folder = self.root.join(folder);
        fs::create_dir_all(&folder)?;
        let name = format!("{account}_CloudTrail_{region}_{stamp}_{unique}.json.gz");
        write_whole(&folder.join(name), &json!({"Records": records}))
    }
}

/// Writes beside the file and renames, so that no reader sees a part of it.
fn write_whole(path: &Path, value: &Value) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = GzEncoder::new(File::create(&part)?, Compression::fast());
    serde_json::to_writer(&mut file, value)?;
    file.finish()?.flush()?;
    fs::rename(part, path)
}
