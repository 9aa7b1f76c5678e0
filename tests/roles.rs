//! One source over several accounts and Regions: a worker for each, with its own credentials, progress and failures.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::time::Duration;

use aws::{HOUR, MINUTE};
use cloudtrail_tls_exporter::time::Timestamp;
use serde_json::{Value, json};
use support::{Exporter, Scrape};

const ACCOUNTS: [&str; 3] = ["222233334444", "333344445555", "444455556666"];
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

fn arn(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/reader")
}

/// A role that the double's own account may assume.
fn role(account: &str, more: Value) -> Value {
    let mut role = json!({"arn": arn(account), "trusts": [aws::ACCOUNT]});
    for (member, value) in more.as_object().unwrap() {
        role[member] = value.clone();
    }
    role
}

/// Delivers so many calls to a log group of an account and Region, an hour ago.
fn deliver(double: &aws::Double, account: &str, region: &str, calls: usize) {
    let group =
        json!([{"name": aws::GROUP, "account": account, "region": region, "creationTime": 0}]);
    double.post("groups", &group);
    let at = Timestamp::now().minus(HOUR).floor(5 * MINUTE);
    let place = json!({"log_group": aws::GROUP, "account": account, "region": region});
    let record = |_| {
        let text = aws::record("s3", "GetObject", "TLSv1.1", at);
        let mut record: Value = serde_json::from_str(&text).unwrap();
        record["recipientAccountId"] = json!(account);
        record["awsRegion"] = json!(region);
        record.to_string()
    };
    let records: Vec<String> = (0..calls).map(record).collect();
    double.deliver(&place, at, &records);
}

/// The program over the double, with these lines for its source.
fn start(double: &aws::Double, home: &tempfile::TempDir, source: &str) -> Exporter {
    let config = home.path().join("config.toml");
    let state = home.path().join("state.db");
    let toml = format!(
        "[state]\npath = '{}'\n[series]\nlabels = ['account_id', 'aws_region']\n[[sources]]\nname = \"logs\"\n\
         type = \"logs_insights\"\nlog_groups = [\"{}\"]\nendpoint_url = \"{}\"\nlookback = \"2h\"\ninterval = \"5m\"\n\
         {source}",
        state.display(),
        aws::GROUP,
        double.endpoint,
    );
    std::fs::write(&config, toml).unwrap();
    let mut environment = aws::ENVIRONMENT.to_vec();
    environment.push(("AWS_ENDPOINT_URL_STS", &double.endpoint));
    let exporter = Exporter::start_in(&["--config.file", config.to_str().unwrap()], &environment);
    exporter.wait_for_ready();
    exporter
}

fn up(scrape: &Scrape, account: &str, region: &str) -> Option<f64> {
    let worker = [("worker_account", account), ("worker_region", region)];
    scrape.value("cloudtrail_tls_exporter_source_up", &worker)
}

fn calls(scrape: &Scrape, account: &str, region: &str) -> f64 {
    let labels = [("account_id", account), ("aws_region", region)];
    scrape.sum("cloudtrail_tls_calls_total", &labels)
}

#[test]
fn three_accounts_in_two_regions_are_counted_and_the_denied_one_alone_fails() {
    let double = aws::Double::start();
    let mut expected = Vec::new();
    for account in ACCOUNTS {
        for region in REGIONS {
            let number = expected.len() + 3;
            deliver(&double, account, region, number);
            expected.push((account, region, number as f64));
        }
    }
    let roles = json!([
        role(ACCOUNTS[0], json!({})),
        role(ACCOUNTS[1], json!({"external_id": "of-the-second"})),
        role(ACCOUNTS[2], json!({"denied": ["StartQuery@us-east-1"]})),
    ]);
    double.post("roles", &roles);
    let home = tempfile::tempdir().unwrap();
    let source = format!(
        "regions = ['eu-west-1', 'us-east-1']\nroles = [{{ arn = '{}' }}, {{ arn = '{}', external_id = \
         'of-the-second' }}, {{ arn = '{}' }}]\n",
        arn(ACCOUNTS[0]),
        arn(ACCOUNTS[1]),
        arn(ACCOUNTS[2])
    );
    let exporter = start(&double, &home, &source);
    let (denied_account, denied_region, _) = expected.pop().unwrap();
    let scrape = exporter.scrape_until("five workers that are up", |scrape| {
        let ups = expected
            .iter()
            .filter(|(account, region, _)| up(scrape, account, region) == Some(1.0));
        let all = scrape.sum("cloudtrail_tls_calls_total", &[]) >= 25.0;
        (ups.count() == 5 && all).then(|| scrape.clone())
    });
    for (account, region, number) in &expected {
        assert_eq!(
            calls(&scrape, account, region),
            *number,
            "{account} {region}"
        );
    }
    let failed = [
        ("worker_account", denied_account),
        ("worker_region", denied_region),
        ("reason", "access_denied"),
    ];
    let scrape = exporter.scrape_until("the sixth to fail", |scrape| {
        let failures = scrape.sum("cloudtrail_tls_exporter_batch_failures_total", &failed);
        (failures >= 1.0).then(|| scrape.clone())
    });
    assert_eq!(up(&scrape, denied_account, denied_region), Some(0.0));
    assert_eq!(calls(&scrape, denied_account, denied_region), 0.0);
    // One session for each worker, under its role, by its external id.
    let stats = double.stats();
    assert!(aws::calls(&stats, "AssumeRole") >= 6, "{stats}");

    // Allowed at last, it is counted as well, and nothing else counts again.
    double.post("roles", &json!([role(ACCOUNTS[2], json!({}))]));
    drop(exporter);
    let exporter = start(&double, &home, &source);
    expected.push((denied_account, denied_region, 8.0));
    let scrape = exporter.scrape_until("six workers that are up", |scrape| {
        let ups = expected
            .iter()
            .filter(|(account, region, _)| up(scrape, account, region) == Some(1.0));
        let all = scrape.sum("cloudtrail_tls_calls_total", &[]) >= 33.0;
        (ups.count() == 6 && all).then(|| scrape.clone())
    });
    for (account, region, number) in &expected {
        assert_eq!(
            calls(&scrape, account, region),
            *number,
            "{account} {region}"
        );
    }
    double.assert_sound();
}

#[test]
fn a_role_that_cannot_be_assumed_is_a_failure_of_credentials() {
    let double = aws::Double::start();
    deliver(&double, ACCOUNTS[0], REGIONS[0], 1);
    double.post(
        "roles",
        &json!([role(ACCOUNTS[0], json!({"external_id": "secret"}))]),
    );
    let home = tempfile::tempdir().unwrap();
    let source = format!(
        "roles = [{{ arn = '{}', external_id = 'wrong' }}]\n",
        arn(ACCOUNTS[0])
    );
    let exporter = start(&double, &home, &source);
    exporter.scrape_until("a failure", |scrape| {
        let reason = [("reason", "credentials"), ("worker_account", ACCOUNTS[0])];
        let failures = scrape.sum("cloudtrail_tls_exporter_batch_failures_total", &reason);
        (failures >= 1.0).then_some(())
    });
    let log = exporter.log().join("\n");
    assert!(
        log.contains("sts:AssumeRole"),
        "the log says what is not allowed: {log}"
    );
}

#[test]
fn credentials_of_a_role_are_asked_for_anew_before_they_expire() {
    let double = aws::Double::start();
    double.switch(json!({"starts_per_second": 1000, "polls_per_second": 1000}));
    deliver(&double, ACCOUNTS[0], REGIONS[0], 1);
    // The SDK takes new credentials ten seconds before the old ones expire.
    double.post(
        "roles",
        &json!([role(ACCOUNTS[0], json!({"expires_in_seconds": 13}))]),
    );
    let home = tempfile::tempdir().unwrap();
    let source = format!("roles = [{{ arn = '{}' }}]\n", arn(ACCOUNTS[0]));
    // A query that takes ten seconds.
    double.switch(json!({"polls_scheduled": 3, "polls_running": 3}));
    let exporter = start(&double, &home, &source);
    let assumed = || aws::calls(&double.stats(), "AssumeRole");
    support::wait_for("a second session", || (assumed() >= 2).then_some(()));
    exporter.scrape_until("the call", |scrape| {
        (calls(scrape, ACCOUNTS[0], REGIONS[0]) == 1.0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(100));
    let failures = exporter
        .scrape()
        .sum("cloudtrail_tls_exporter_batch_failures_total", &[]);
    assert_eq!(failures, 0.0);
}
