//! Who makes the outdated calls, through the whole program over files; and, of CloudTrail's own records, what another
//! reader finds in them.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloudtrail_tls_exporter::call::{AskedCallers, CallerLabels};
use cloudtrail_tls_exporter::source::Progress as _;
use cloudtrail_tls_exporter::source::Source as _;
use cloudtrail_tls_exporter::source::trail_files::{Choice, FilesProgress, Settings, TrailFiles};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::TlsVersion;
use flate2::read::GzDecoder;
use serde_json::Value;
use support::made::{self, Made};
use support::{Exporter, Scrape, config, shared};
use tempfile::TempDir;

const FAMILY: &str = "cloudtrail_tls_outdated_caller_window_calls";
const LOUD: &str = "111122223333";
const QUIET: &str = "444455556666";
const OTHER: &str = "other";
/// Busier than every other caller of the loud account.
const BUSY: &str = "aws-sdk-java/1.7.4 Linux/2.6.32 \"Old\\VM\"";

/// A loud account with 300 user agents, one of which calls often, and a quiet one with one.
fn records(now: Timestamp) -> Vec<Made> {
    let call = || Made::new("s3", "GetObject", "TLSv1.1", now);
    let mut records: Vec<Made> = (0..300)
        .map(|number| call().by(LOUD, "crawler", &format!("agent/{number:03}")))
        .collect();
    records.extend((0..10).map(|_| call().by(LOUD, "batch", BUSY)));
    records.push(Made::new("s3", "PutObject", "TLSv1", now).by(LOUD, "batch", BUSY));
    records.push(call().by(QUIET, "payroll", "Boto/2.1"));
    records.push(Made::new("sqs", "SendMessage", "TLSv1", now));
    let modern = Made::new("s3", "GetObject", "TLSv1.3", now);
    records.push(modern.by(QUIET, "modern", "Boto3/1.40"));
    records
}

/// A trail and a configuration over it.
struct Home {
    folder: TempDir,
    config: PathBuf,
    records: Vec<Made>,
}

impl Home {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trail = folder.path().join("trail");
        let now = Timestamp::now().minus(Duration::from_secs(60));
        let records = records(now);
        made::deliver(&made::path(&trail, now, "A"), &records);
        let config = config(folder.path(), &trail, more);
        Self {
            folder,
            config,
            records,
        }
    }

    fn start(&self) -> Exporter {
        let exporter = Exporter::start(&self.config);
        let all = self.records.len() as f64;
        exporter.scrape_until("all calls", |scrape| {
            (scrape.sum("cloudtrail_tls_calls_total", &[]) == all).then_some(())
        });
        exporter
    }
}

/// The sums of the family are those of `outdated_window_calls`.
fn assert_sums(scrape: &Scrape) {
    let mut sums: BTreeMap<(String, String), f64> = BTreeMap::new();
    for (labels, calls) in scrape.of(FAMILY, &[]) {
        let set = (labels["account_id"].clone(), labels["aws_service"].clone());
        *sums.entry(set).or_default() += calls;
    }
    let outdated = scrape.of("cloudtrail_tls_outdated_window_calls", &[]);
    let expected = outdated.map(|(labels, calls)| {
        let set = (labels["account_id"].clone(), labels["aws_service"].clone());
        (set, calls)
    });
    assert_eq!(sums, expected.collect());
}

/// The series of the family: account, call, principal and user agent as the scrape escapes it.
fn series(scrape: &Scrape) -> Vec<(String, String, String, String, f64)> {
    let series = scrape.of(FAMILY, &[]);
    let series = series.map(|(labels, calls)| {
        let text = |label: &str| labels.get(label).cloned().unwrap_or_default();
        (
            text("account_id"),
            text("event_name"),
            text("principal"),
            text("user_agent"),
            calls,
        )
    });
    series.collect()
}

#[test]
fn a_loud_account_is_named_by_its_busiest_and_the_quiet_one_is_not_pushed_out() {
    let home = Home::new("");
    let exporter = home.start();
    let scrape = exporter.scrape();
    assert_sums(&scrape);
    let role = |account: &str, name: &str| format!("arn:aws:iam::{account}:role/{name}");
    let busy = BUSY.replace('\\', "\\\\").replace('"', "\\\"");
    let busy = busy.trim_end_matches('"');
    let row = |account: &str, event: &str, principal: String, agent: &str, calls: f64| {
        (
            account.to_owned(),
            event.to_owned(),
            principal,
            agent.to_owned(),
            calls,
        )
    };
    let mut expected: Vec<_> = (0..4)
        .map(|number| {
            let agent = format!("agent/{number:03}");
            row(LOUD, "GetObject", role(LOUD, "crawler"), &agent, 1.0)
        })
        .collect();
    expected.extend([
        row(LOUD, "GetObject", role(LOUD, "batch"), busy, 10.0),
        row(LOUD, "PutObject", role(LOUD, "batch"), busy, 1.0),
        row(LOUD, "GetObject", OTHER.into(), OTHER, 296.0),
        row(LOUD, "SendMessage", "none".into(), "none", 1.0),
        row(QUIET, "GetObject", role(QUIET, "payroll"), "Boto/2.1", 1.0),
    ]);
    let sorted = |mut rows: Vec<(String, String, String, String, f64)>| {
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows
    };
    assert_eq!(sorted(series(&scrape)), sorted(expected));

    // What is delivered again, also in part, counts for nobody.
    let trail = home.folder.path().join("trail");
    let now = Timestamp::now();
    made::deliver(&made::path(&trail, now, "B"), &home.records);
    let fresh = Made::new("s3", "GetObject", "TLSv1.1", now).by(QUIET, "payroll", "Boto/2.1");
    let half = home.records.iter().step_by(2).cloned();
    let half: Vec<Made> = half.chain([fresh]).collect();
    made::deliver(&made::path(&trail, now, "C"), &half);
    let payroll = [("account_id", QUIET), ("user_agent", "Boto/2.1")];
    exporter.scrape_until("the one new call", |scrape| {
        (scrape.sum(FAMILY, &payroll) > 1.0).then_some(())
    });
    exporter.wait_for_scans(2);
    let later = exporter.scrape();
    assert_sums(&later);
    assert_eq!(later.sum(FAMILY, &payroll), 2.0);
    assert_eq!(
        later.sum(FAMILY, &[("account_id", LOUD)]),
        scrape.sum(FAMILY, &[("account_id", LOUD)])
    );

    // Nothing is lost by a kill.
    let before = series(&later);
    exporter.kill();
    let exporter = home_without_trail(&home);
    assert_eq!(series(&exporter.scrape()), before);
}

/// The program again, with nothing left to read: what it shows was stored.
fn home_without_trail(home: &Home) -> Exporter {
    let folder = home.folder.path();
    fs::rename(folder.join("trail"), folder.join("away")).unwrap();
    Exporter::start(&home.config)
}

#[test]
fn a_limit_names_the_busiest_of_each_account_first() {
    let home = Home::new("[callers]\nlimit = 3\nlabels = [\"user_agent\"]");
    let scrape = home.start().scrape();
    assert_sums(&scrape);
    let mut named: Vec<(String, String, f64)> = series(&scrape)
        .into_iter()
        .filter(|(_, _, _, agent, _)| agent != OTHER)
        .map(|(account, _, principal, agent, calls)| {
            assert_eq!(principal, "", "no such label");
            (account, agent, calls)
        })
        .collect();
    named.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(named.len(), 3);
    assert_eq!(named[1], (LOUD.to_owned(), "none".to_owned(), 1.0));
    assert_eq!(named[2], (QUIET.to_owned(), "Boto/2.1".to_owned(), 1.0));
}

/// Whether a file below the store's folder has this text.
fn stored(home: &Path, text: &str) -> bool {
    let files = fs::read_dir(home)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file() && path.to_string_lossy().contains("state.db"));
    let mut contents = files.map(|path| fs::read(path).unwrap());
    contents.any(|bytes| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

#[test]
fn what_is_not_asked_for_is_neither_shown_nor_stored() {
    for (more, principal) in [
        ("labels = []", false),
        ("limit = 0", false),
        ("labels = [\"principal\"]", true),
    ] {
        let home = Home::new(&format!("[callers]\n{more}"));
        let exporter = home.start();
        let scrape = exporter.scrape();
        assert_eq!(scrape.of(FAMILY, &[]).count() > 0, principal, "{more}");
        let text = exporter.get("/metrics", &[]).text();
        exporter.end_with("TERM");
        for agent in ["agent/", "Boto/2.1", "198.51.100.7"] {
            assert!(!text.contains(agent), "{more}: {agent}");
            assert!(!stored(home.folder.path(), agent), "{more}: {agent}");
        }
        assert_eq!(
            stored(home.folder.path(), "role/payroll"),
            principal,
            "{more}"
        );
        assert!(!stored(home.folder.path(), "role/modern"), "{more}");
    }
    let home = Home::new("[callers]\nlabels = [\"source_ip\", \"user_agent\"]");
    let exporter = home.start();
    let scrape = exporter.scrape();
    assert_sums(&scrape);
    let quiet = [
        ("account_id", QUIET),
        ("source_ip", "198.51.100.7"),
        ("user_agent", "Boto/2.1"),
    ];
    assert_eq!(scrape.value(FAMILY, &quiet), Some(1.0));
    exporter.end_with("TERM");
    assert!(stored(home.folder.path(), "Boto/2.1"));
}

/// Each record's caller as serde_json and the rule find it.
fn truth(root: &Path, below: TlsVersion) -> BTreeMap<[String; 7], u64> {
    let mut truth = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with(".json.gz") {
            continue;
        }
        let file: Value =
            serde_json::from_reader(GzDecoder::new(fs::File::open(entry.path()).unwrap())).unwrap();
        for record in file["Records"].as_array().unwrap() {
            let version = record["tlsDetails"]["tlsVersion"].as_str();
            if !TlsVersion::from_record(version).outdated(below) {
                continue;
            }
            let text = |at: &str| {
                let text = record
                    .pointer(at)
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                text.to_owned()
            };
            let identity = [
                "/userIdentity/sessionContext/sessionIssuer/arn",
                "/userIdentity/arn",
                "/userIdentity/invokedBy",
                "/userIdentity/principalId",
            ];
            let principal = identity.map(text).into_iter().find(|text| !text.is_empty());
            let caller = [
                text("/eventSource").replace(".amazonaws.com", ""),
                text("/eventName"),
                text("/tlsDetails/tlsVersion"),
                text("/recipientAccountId"),
                principal.unwrap_or_default(),
                text("/userAgent"),
                text("/sourceIPAddress"),
            ];
            let cut = |text: String| match text.as_str() {
                "" => "none".to_owned(),
                _ => text.split_at(text.floor_char_boundary(200)).0.to_owned(),
            };
            *truth.entry(caller.map(cut)).or_default() += 1;
        }
    }
    truth
}

#[test]
fn the_callers_of_cloudtrails_own_records_are_those_that_another_reader_finds() {
    let Some(location) = shared("data/cloudtrail/AWSLogs") else {
        return;
    };
    let below = TlsVersion::Tls13;
    let mut source = TrailFiles::new(Settings {
        location: location.clone(),
        choice: Choice::default(),
        deduplicate: true,
        lookback: Duration::from_secs(9999 * 86_400),
        retention: Duration::from_secs(9999 * 86_400),
        bucket: Duration::from_secs(3600),
        callers: AskedCallers {
            below,
            labels: CallerLabels {
                principal: true,
                user_agent: true,
                source_ip: true,
            },
        },
    });
    let mut progress = FilesProgress::default();
    let mut found: BTreeMap<[String; 7], u64> = BTreeMap::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for _ in 0..2 {
        while let Some(batch) = runtime
            .block_on(source.next_batch(&progress, Timestamp::now()))
            .unwrap()
        {
            for change in &batch.progress {
                progress.apply(change).unwrap();
            }
            for (_, caller, calls) in batch.callers.iter() {
                let texts = [
                    caller.aws_service.as_str(),
                    caller.event_name.as_str(),
                    caller.tls_version.label(),
                    caller.account_id.as_str(),
                    caller.principal.as_str(),
                    caller.user_agent.as_str(),
                    caller.source_ip.as_str(),
                ];
                *found.entry(texts.map(str::to_owned)).or_default() += calls;
            }
        }
    }
    let truth = truth(&location, below);
    assert!(truth.len() > 300, "only {} callers", truth.len());
    // Of a file at most 200 callers are kept: what is missing is missing whole.
    for (caller, calls) in &found {
        assert!(truth.get(caller) >= Some(calls), "{caller:?}");
    }
    let [all, known] = [&truth, &found].map(|callers| callers.values().sum::<u64>());
    assert!(known * 100 > all * 99, "{known} of {all}");
}
