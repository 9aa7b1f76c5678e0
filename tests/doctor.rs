//! `doctor`: the real binary over the double of AWS. All well for each type of source, and each failure with its hint.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aws::{ACCOUNT, Double, ENVIRONMENT, GROUP, HOUR, KEY, MINUTE, REGION, SECRET, STORE, TABLE};
use cloudtrail_tls_exporter::time::Timestamp;
use programs::run;
use serde_json::{Value, json};
use support::BINARY;
use support::made::{self, Made};

const LOGS: &str = "name = \"logs\"\ntype = \"logs_insights\"\nlog_groups = [\"trail\"]\n";
const LAKE: &str = "name = \"lake\"\ntype = \"lake\"\nevent_data_store = \"01234567-89ab-cdef-0123-456789abcdef\"\n";
const ATHENA: &str = "name = \"athena\"\ntype = \"athena\"\ntable = \"cloudtrail_logs\"\n";
const RESULTS: &str = "output_location = \"s3://results/\"\n";
const HISTORY: &str = "name = \"history\"\ntype = \"event_history\"\n";

/// Exit code, stdout and stderr of `doctor` over a configuration of sources.
fn doctor(
    sources: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (i32, String, String) {
    let home = tempfile::tempdir().unwrap();
    let (config, state) = (
        home.path().join("config.toml"),
        home.path().join("state.db"),
    );
    fs::write(
        &config,
        format!("[state]\npath = '{}'\n{sources}", state.display()),
    )
    .unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["doctor", "--config.file"])
        .arg(&config)
        .args(arguments);
    command.env_clear().envs(environment.iter().copied());
    let output = run(&mut command, b"");
    assert!(!state.exists(), "doctor writes no store");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("no signal");
    (code, text(output.stdout), text(output.stderr))
}

/// A double, and `doctor` over one source that asks it.
struct Rig(Double);

impl Rig {
    fn new() -> Self {
        let double = Double::start();
        double.switch(json!({
            "polls_scheduled": 0, "polls_running": 1, "lake_starts_per_second": 100, "lake_cancels_per_second": 100,
        }));
        Self(double)
    }

    /// With the log group that [`LOGS`] names.
    fn of_logs(group: Value) -> Self {
        let rig = Self::new();
        rig.0.group(group);
        rig.deliver(
            &json!({"log_group": GROUP}),
            &["TLSv1.1", "TLSv1.3", "none"],
        );
        rig
    }

    /// With the table that [`ATHENA`] names.
    fn of_athena(table: Value) -> Self {
        let rig = Self::new();
        rig.0.table(table);
        rig.deliver(
            &json!({"table": format!("default.{TABLE}")}),
            &["TLSv1.1", "TLSv1.3", "none"],
        );
        rig
    }

    fn of_lake(store: Value) -> Self {
        let rig = Self::new();
        let mut order = json!({"id": STORE, "account": ACCOUNT, "region": REGION});
        for (member, value) in store.as_object().unwrap() {
            order[member] = value.clone();
        }
        rig.0.post("stores", &json!([order]));
        rig.deliver(
            &json!({"event_data_store": STORE}),
            &["TLSv1.1", "TLSv1.3", "none"],
        );
        rig
    }

    /// Delivers a record every 20 seconds of the last four hours, each a minute after its call.
    fn deliver(&self, place: &Value, versions: &[&str]) {
        let now = Timestamp::now().floor(MINUTE);
        let steps =
            (0..4 * 180).map(|number: u32| (now.minus(4 * HOUR).plus(number * MINUTE / 3), number));
        let events = steps.map(|(time, number)| {
            let version = versions[number as usize % versions.len()];
            (
                time,
                aws::record("s3", "GetObject", version, time.minus(MINUTE)),
            )
        });
        self.0.deliver_all(place, events.collect());
    }

    fn deny(&self, operation: &str) {
        let credential = json!([{"access_key": KEY, "secret": SECRET, "account": ACCOUNT, "denied": [operation]}]);
        self.0.post("credentials", &credential);
    }

    fn doctor(&self, source: &str, arguments: &[&str]) -> (i32, String, String) {
        let sts = [("AWS_ENDPOINT_URL_STS", self.0.endpoint.as_str())];
        let environment = [&ENVIRONMENT[..], &sts].concat();
        let found = doctor(&self.source(source), arguments, &environment);
        self.0.assert_sound();
        found
    }

    fn source(&self, source: &str) -> String {
        format!(
            "[[sources]]\n{source}endpoint_url = \"{}\"\n",
            self.0.endpoint
        )
    }

    /// What is told of a check, and its hint; the command must fail exactly if the check has.
    fn told(&self, source: &str, check: &str) -> (String, String) {
        let (code, text, error) = self.doctor(source, &[]);
        let (verdict, hint) = told(&text, check);
        assert_eq!(
            code == 1,
            text.contains("\n  failed "),
            "{code} {text}{error}"
        );
        (verdict, hint)
    }
}

/// The line of a check without its name, and that of its hint.
fn told(text: &str, check: &str) -> (String, String) {
    let mut lines = text.lines();
    let of_check =
        |line: &&str| line.split_whitespace().nth(1) == Some(check) && line.starts_with("  ");
    let line = lines
        .find(of_check)
        .unwrap_or_else(|| panic!("no {check} in {text}"));
    let (verdict, found) = line.trim().split_once(' ').unwrap();
    let found = found.trim().strip_prefix(check).unwrap().trim();
    let hint = lines
        .next()
        .and_then(|line| line.trim().strip_prefix("hint: "));
    (
        format!("{verdict}: {found}"),
        hint.unwrap_or_default().to_owned(),
    )
}

/// The text without what differs from run to run: who is told by STS is a check of its own, and is left out here.
fn steady(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut left_out = false;
    for line in text.lines() {
        let hint = line.trim().starts_with("hint: ");
        left_out = line.split_whitespace().nth(1) == Some("identity") || left_out && hint;
        if !left_out {
            lines.push(steady_line(line));
        }
    }
    // The summary counts the identity too.
    lines.pop();
    lines.join("\n") + "\n"
}

fn steady_line(line: &str) -> String {
    let plain = |word: &str| word.trim_matches(|c| ",()".contains(c)).to_owned();
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for place in 0..words.len() {
        let word = plain(&words[place]);
        let unit = words.get(place + 1).map(|next| plain(next));
        let unit = unit.filter(|unit| ["bytes", "KiB", "MiB"].contains(&unit.as_str()));
        let ends_in_unit = word.ends_with(|c: char| c.is_ascii_alphabetic());
        if Timestamp::parse(&word).is_some() {
            words[place] = words[place].replace(&word, "TIME");
        } else if ends_in_unit && humantime::parse_duration(&word).is_ok() {
            words[place] = words[place].replace(&word, "AGE");
        } else if let Some(unit) = unit
            && word.parse::<f64>().is_ok()
        {
            words[place] = words[place].replace(&word, "N");
            words[place + 1] = words[place + 1].replace(&unit, "BYTES");
        }
    }
    // How many words an age has differs.
    let line = words.join(" ");
    line.replace("AGE AGE AGE", "AGE").replace("AGE AGE", "AGE")
}

#[test]
fn all_is_well_with_logs_insights() {
    let rig = Rig::of_logs(json!({"creationTime": 0}));
    let (code, text, error) = rig.doctor(LOGS, &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    assert_eq!(
        steady(&text),
        "\
logs (logs_insights) in eu-west-1
  ok       region                eu-west-1
  ok       describe_log_groups   logs:DescribeLogGroups is allowed
  ok       log_group             trail: class STANDARD, since TIME, N BYTES stored
  ok       retention             trail: events never expire
  ok       clock                 the host's clock is AWS's
  ok       start_query           logs:StartQuery is allowed
  ok       get_query_results     logs:GetQueryResults is allowed
  ok       stop_query            logs:StopQuery is allowed (the query had ended)
  ok       query                 answered in AGE, N BYTES scanned
  ok       records               180 from TIME to TIME
  ok       newest_record         TIME, AGE ago, AGE before the end of that time
  ok       tls_details           120 of 180 have tlsDetails (66 %), 0 with a key exchange
  ok       positive_control      60 on TLS 1.2 or newer (TLSv1.1 60, TLSv1.3 60, none 60)
  ok       cost                  scanned N BYTES just now (less than $0.01); about N BYTES a day (less than $0.01), by this hour
"
    );
}

#[test]
fn all_is_well_with_lake() {
    let rig = Rig::of_lake(json!({}));
    rig.0.switch(json!({"lake_key_exchange": "absent"}));
    let (code, text, error) = rig.doctor(LAKE, &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    assert_eq!(
        steady(&text),
        "\
lake (lake) in eu-west-1
  ok       region                eu-west-1
  ok       event_data_store      trail: ENABLED, all Regions, one account
  ok       retention             366 days
  ok       management_events     AWS tells no event selectors
  ok       clock                 the host's clock is AWS's
  ok       start_query           cloudtrail:StartQuery is allowed
  ok       describe_query        cloudtrail:DescribeQuery is allowed
  ok       get_query_results     cloudtrail:GetQueryResults is allowed
  ok       cancel_query          cloudtrail:CancelQuery is allowed (the query had ended)
  ok       query                 answered in AGE, N BYTES scanned
  ok       records               180 from TIME to TIME
  ok       newest_record         TIME, AGE ago, AGE before the end of that time
  ok       tls_details           120 of 180 have tlsDetails (66 %), 0 with a key exchange
  ok       positive_control      60 on TLS 1.2 or newer (TLSv1.1 60, TLSv1.3 60, none 60)
  warning  key_exchange          no record has one: `unreported` in the metrics
           hint: `key_exchange = \"event_json\"` reads it out of the whole event, and scans more bytes
  ok       cost                  scanned N BYTES just now (less than $0.01); about N BYTES a day (less than $0.01), by this hour; the look for late calls comes on top
"
    );
}

#[test]
fn all_is_well_with_athena() {
    let rig = Rig::of_athena(json!({"layout": "timestamp"}));
    let (code, text, error) = rig.doctor(&format!("{ATHENA}{RESULTS}"), &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    // How much of the day there is differs: no number is steady.
    let text = steady(&text);
    let words = text.split(' ').map(|word| {
        let mut digits = word.trim_matches(|c: char| !c.is_ascii_digit()).chars();
        let number = digits.clone().next().is_some() && digits.all(|c| c.is_ascii_digit());
        let plain = word.trim_matches(|c: char| !c.is_alphanumeric());
        match number && plain.parse::<u64>().is_ok() {
            true => word.replace(plain, "N"),
            false => word.to_owned(),
        }
    });
    assert_eq!(
        words.collect::<Vec<_>>().join(" "),
        "\
athena (athena) in eu-west-1
  ok       region                eu-west-1
  ok       work_group            primary: results go to s3://results/
  ok       table                 AwsDataCatalog.default.cloudtrail_logs
  ok       columns               all are there, the key exchange too
  ok       partitions            by timestamp
  ok       clock                 the host's clock is AWS's
  ok       start_query_execution athena:StartQueryExecution is allowed
  ok       get_query_execution   athena:GetQueryExecution is allowed
  ok       get_query_results     athena:GetQueryResults is allowed
  ok       stop_query_execution  athena:StopQueryExecution is allowed
  ok       query                 answered in AGE, N BYTES scanned
  ok       records               N from TIME to TIME
  ok       newest_record         TIME, AGE ago, AGE before the end of that time
  ok       tls_details           N of N have tlsDetails (N %), N with a key exchange
  ok       positive_control      N on TLS 1.2 or newer (TLSv1.1 N, TLSv1.3 N, none N)
  ok       cost                  scanned N BYTES just now (less than $0.01); about N BYTES a day (less than $0.01), by the files of the day so far
"
    );
}

#[test]
fn all_is_well_with_the_event_history() {
    let rig = Rig::new();
    let place = json!({"event_history": true});
    rig.deliver(&place, &["TLSv1.1", "TLSv1.3", "none"]);
    let (code, text, error) = rig.doctor(HISTORY, &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    assert_eq!(
        steady(&text),
        "\
history (event_history) in eu-west-1
  ok       region                eu-west-1
  ok       lookup_events         cloudtrail:LookupEvents is allowed
  ok       clock                 the host's clock is AWS's
  ok       records               15 from TIME to TIME
  ok       newest_record         TIME, AGE ago, AGE before the end of that time
  ok       tls_details           10 of 15 have tlsDetails (66 %), 0 with a key exchange
  ok       positive_control      5 on TLS 1.2 or newer (TLSv1.1 5, TLSv1.3 5, none 5)
  ok       cost                  scanned N BYTES just now ($0); about N BYTES a day ($0), as the event history is free
"
    );
}

/// A source over a folder.
fn files(folder: &Path) -> String {
    format!(
        "[[sources]]\nname = \"trail\"\ntype = \"trail_files\"\nlocation = '{}'\n",
        folder.display()
    )
}

fn deliver_file(folder: &Path, age: Duration, unique: &str) {
    let time = Timestamp::now().minus(age).floor(MINUTE);
    let records =
        ["TLSv1.1", "TLSv1.3", "none"].map(|version| Made::new("s3", "GetObject", version, time));
    made::deliver(&made::path(folder, time, unique), &records);
}

#[test]
fn all_is_well_with_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    deliver_file(folder.path(), 5 * MINUTE, "AAAA");
    let (code, text, error) = doctor(&files(folder.path()), &[], &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    assert_eq!(
        steady(&text).replace(folder.path().to_str().unwrap(), "FOLDER"),
        "\
trail (trail_files)
  ok       folder                FOLDER can be read
  ok       files                 1 from TIME on, N BYTES read
  ok       newest_delivery       TIME, AGE ago
  ok       unreadable            none
  ok       records               3 from TIME to TIME
  ok       newest_record         TIME, AGE ago, AGE before the end of that time
  ok       tls_details           2 of 3 have tlsDetails (66 %), 0 with a key exchange
  ok       positive_control      1 on TLS 1.2 or newer (TLSv1.1 1, TLSv1.3 1, none 1)
  ok       cost                  AWS bills nothing for reading files that lie here
"
    );
    assert!(
        text.ends_with("9 ok, 0 warning, 0 failed, 0 skipped\n"),
        "{text}"
    );
}

#[test]
fn a_folder_that_is_not_there_is_empty_old_or_broken_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let told_of = |folder: &Path, check| {
        let (code, text, error) = doctor(&files(folder), &[], &[]);
        let failed = text.contains("\n  failed ");
        assert_eq!(code == 1, failed, "{text}");
        assert_eq!(error.contains("failed"), failed, "{error}");
        told(&text, check)
    };
    let (found, hint) = told_of(Path::new("/nonexistent/trail"), "folder");
    assert!(
        found.starts_with("failed: cannot look into /nonexistent/trail: No such file"),
        "{found}"
    );
    assert!(hint.starts_with("look at `location`"), "{hint}");
    let (found, hint) = told_of(folder.path(), "files");
    assert_eq!(
        found,
        "failed: no log file of the last 1month 4days 13h 26m 24s"
    );
    assert!(hint.contains("does the copy run"), "{hint}");
    deliver_file(folder.path(), 5 * HOUR, "AAAA");
    let (found, hint) = told_of(folder.path(), "newest_delivery");
    assert!(found.starts_with("warning: "), "{found}");
    assert!(hint.contains("the copy has stopped"), "{hint}");
    let broken = made::path(folder.path(), Timestamp::now().minus(MINUTE), "BBBB");
    fs::create_dir_all(broken.parent().unwrap()).unwrap();
    fs::write(&broken, "no gzip").unwrap();
    let (found, hint) = told_of(folder.path(), "unreadable");
    assert!(
        found.starts_with("failed: 1 of 1; the first is AWSLogs/"),
        "{found}"
    );
    assert!(hint.contains("`exclude`"), "{hint}");
    deliver_file(folder.path(), MINUTE, "CCCC");
    let (found, _) = told_of(folder.path(), "unreadable");
    assert!(
        found.starts_with("warning: 1 of 2; the first is AWSLogs/"),
        "{found}"
    );
}

#[test]
fn without_credentials_nothing_else_is_tried() {
    let rig = Rig::of_logs(json!({}));
    let sts = ("AWS_ENDPOINT_URL_STS", rig.0.endpoint.as_str());
    let environment = [ENVIRONMENT[2], ENVIRONMENT[3], sts];
    let (code, text, error) = doctor(&rig.source(LOGS), &[], &environment);
    assert_eq!(
        (code, error.as_str()),
        (1, "error: 1 check failed\n"),
        "{text}"
    );
    let (found, hint) = told(&text, "identity");
    assert!(
        found.starts_with("failed: GetCallerIdentity failed: "),
        "{found}"
    );
    assert!(hint.starts_with("give it credentials that hold"), "{hint}");
    assert_eq!(told(&text, "region").0, "ok: eu-west-1");
    assert_eq!(
        told(&text, "start_query").0,
        "skipped: not tried, as identity failed"
    );
    assert_eq!(rig.0.stats()["queries"], json!([]));
}

#[test]
fn who_asks_is_told_and_a_role_that_may_not_be_assumed_too() {
    const OTHER: &str = "444455556666";
    let rig = Rig::of_logs(json!({}));
    let (found, _) = rig.told(LOGS, "identity");
    assert_eq!(found, format!("ok: arn:aws:sts::{ACCOUNT}:user/moto"));
    rig.deny("StartQuery");
    let (_, hint) = rig.told(LOGS, "start_query");
    let allow =
        format!("allow logs:StartQuery on arn:aws:logs:{REGION}:{ACCOUNT}:log-group:trail:* ");
    assert!(hint.starts_with(&allow), "{hint}");

    let role = format!("arn:aws:iam::{OTHER}:role/reader");
    let source = format!("{LOGS}roles = [{{ arn = \"{role}\" }}]\n");
    rig.0.group(json!({"account": OTHER}));
    let trusts = |accounts: &[&str]| {
        rig.0
            .post("roles", &json!([{"arn": role, "trusts": accounts}]));
    };
    trusts(&[]);
    let (found, hint) = rig.told(&source, "identity");
    assert!(
        found.starts_with("failed: GetCallerIdentity failed: "),
        "{found}"
    );
    assert!(
        hint.starts_with(&format!("allow sts:AssumeRole on {role} ")),
        "{hint}"
    );
    trusts(&[ACCOUNT]);
    let (_, text, _) = rig.doctor(&source, &[]);
    let title = format!("logs (logs_insights) as {role} in {REGION}\n");
    assert!(text.starts_with(&title), "{text}");
    let (found, _) = told(&text, "identity");
    let session = format!("ok: arn:aws:sts::{OTHER}:assumed-role/reader/cloudtrail-tls-exporter");
    assert_eq!(found, session);
    assert!(told(&text, "log_group").0.starts_with("ok: "), "{text}");
}

#[test]
fn without_a_region_nothing_is_asked_of_the_source() {
    let rig = Rig::of_logs(json!({}));
    let sts = ("AWS_ENDPOINT_URL_STS", rig.0.endpoint.as_str());
    let environment = [ENVIRONMENT[0], ENVIRONMENT[1], ENVIRONMENT[3], sts];
    let (code, text, _) = doctor(&rig.source(LOGS), &[], &environment);
    assert_eq!(code, 1, "{text}");
    let (found, hint) = told(&text, "region");
    assert_eq!(found, "failed: no Region is configured");
    assert!(hint.contains("AWS_REGION"), "{hint}");
    assert_eq!(
        told(&text, "records").0,
        "skipped: not tried, as region failed"
    );
}

#[test]
fn a_log_group_that_is_not_there_or_in_another_region_is_told() {
    let rig = Rig::of_logs(json!({}));
    let other = LOGS.replace("trail", "other");
    let (found, hint) = rig.told(&other, "log_group");
    assert_eq!(found, "failed: no log group other in eu-west-1");
    assert!(hint.contains("`region`"), "{hint}");
    let (found, _) = rig.told(&format!("{LOGS}region = \"us-east-1\"\n"), "log_group");
    assert_eq!(found, "failed: no log group trail in us-east-1");
}

#[test]
fn each_permission_that_is_missing_is_told_with_action_and_resource() {
    let logs = Rig::of_logs(json!({}));
    let lake = Rig::of_lake(json!({}));
    let athena = Rig::of_athena(json!({"layout": "timestamp"}));
    let history = Rig::new();
    let results = format!("{ATHENA}{RESULTS}");
    let group = "log-group:trail:*";
    for (rig, source, operation, check, verdict, action, resource) in [
        (
            &logs,
            LOGS,
            "StartQuery",
            "start_query",
            "failed",
            "logs:StartQuery",
            group,
        ),
        (
            &logs,
            LOGS,
            "GetQueryResults",
            "get_query_results",
            "failed",
            "logs:GetQueryResults",
            group,
        ),
        (
            &logs,
            LOGS,
            "StopQuery",
            "stop_query",
            "failed",
            "logs:StopQuery",
            "on *",
        ),
        (
            &logs,
            LOGS,
            "DescribeLogGroups",
            "describe_log_groups",
            "warning",
            "logs:DescribeLogGroups",
            "on *",
        ),
        (
            &lake,
            LAKE,
            "StartQuery",
            "start_query",
            "failed",
            "cloudtrail:StartQuery",
            STORE,
        ),
        (
            &lake,
            LAKE,
            "DescribeQuery",
            "describe_query",
            "failed",
            "cloudtrail:DescribeQuery",
            STORE,
        ),
        (
            &lake,
            LAKE,
            "GetQueryResults",
            "get_query_results",
            "failed",
            "cloudtrail:GetQueryResults",
            STORE,
        ),
        (
            &lake,
            LAKE,
            "CancelQuery",
            "cancel_query",
            "failed",
            "cloudtrail:CancelQuery",
            STORE,
        ),
        (
            &lake,
            LAKE,
            "GetEventDataStore",
            "event_data_store",
            "warning",
            "cloudtrail:GetEventDataStore",
            STORE,
        ),
        (
            &athena,
            &results,
            "StartQueryExecution",
            "start_query_execution",
            "failed",
            "athena:StartQueryExecution",
            "workgroup/primary",
        ),
        (
            &athena,
            &results,
            "GetQueryExecution",
            "get_query_execution",
            "failed",
            "athena:GetQueryExecution",
            "workgroup/primary",
        ),
        (
            &athena,
            &results,
            "GetQueryResults",
            "get_query_results",
            "failed",
            "athena:GetQueryResults",
            "workgroup/primary",
        ),
        (
            &athena,
            &results,
            "StopQueryExecution",
            "stop_query_execution",
            "failed",
            "athena:StopQueryExecution",
            "workgroup/primary",
        ),
        (
            &athena,
            &results,
            "GetWorkGroup",
            "work_group",
            "warning",
            "athena:GetWorkGroup",
            "workgroup/primary",
        ),
        (
            &athena,
            &results,
            "GetTableMetadata",
            "table",
            "warning",
            "athena:GetTableMetadata",
            "datacatalog/AwsDataCatalog",
        ),
        (
            &history,
            HISTORY,
            "LookupEvents",
            "lookup_events",
            "failed",
            "cloudtrail:LookupEvents",
            "on *",
        ),
    ] {
        rig.deny(operation);
        let (found, hint) = rig.told(source, check);
        let says = format!("{verdict}: {operation} was answered AccessDeniedException: ");
        assert!(found.starts_with(&says), "{operation}: {found}");
        assert!(
            hint.starts_with(&format!("allow {action} on ")),
            "{operation}: {hint}"
        );
        assert!(hint.contains(resource), "{operation}: {hint}");
    }
}

#[test]
fn infrequent_access_without_parse_json_is_told() {
    let rig = Rig::of_logs(json!({"class": "INFREQUENT_ACCESS"}));
    rig.0.switch(json!({"ia_discovers_fields": false}));
    let (found, hint) = rig.told(LOGS, "log_group");
    assert!(
        found.starts_with("warning: trail: class INFREQUENT_ACCESS"),
        "{found}"
    );
    assert!(hint.contains("`parse_json = true`"), "{hint}");
    let (found, hint) = rig.told(LOGS, "records");
    assert!(found.starts_with("failed: 180 log events from "), "{found}");
    assert!(hint.contains("`parse_json = true`"), "{hint}");
    let json = format!("{LOGS}parse_json = true\n");
    assert!(rig.told(&json, "log_group").0.starts_with("ok: "));
    assert!(rig.told(&json, "records").0.starts_with("ok: 180 from "));
}

#[test]
fn retention_and_field_index_are_told() {
    let outdated = format!("{LOGS}scope = \"outdated\"\n");
    let rig = Rig::of_logs(json!({"retentionInDays": 3}));
    let (found, hint) = rig.told(LOGS, "retention");
    assert_eq!(found, "warning: trail: 3 days");
    assert!(hint.contains("`catch_up_limit`"), "{hint}");
    let (found, hint) = rig.told(&outdated, "field_index");
    assert_eq!(
        found,
        "warning: tlsDetails.tlsVersion is indexed in 0 of 1 log groups"
    );
    assert!(hint.contains("logs:PutIndexPolicy"), "{hint}");

    let rig = Rig::of_logs(json!({"fieldIndexes": ["tlsDetails.tlsVersion"]}));
    assert!(rig.told(&outdated, "field_index").0.starts_with("ok: "));
    let (found, _) = rig.told(&outdated, "outdated_query");
    assert!(found.starts_with("ok: 60 outdated calls, "), "{found}");
    let (found, _) = rig.told(&outdated, "positive_control");
    assert!(found.starts_with("ok: 60 on TLS 1.2 or newer"), "{found}");
    assert!(
        rig.told(&outdated, "cost")
            .0
            .contains("the control included")
    );
}

#[test]
fn an_event_data_store_that_is_not_there_or_is_at_rest_is_told() {
    let rig = Rig::of_lake(json!({"status": "STOPPED_INGESTION"}));
    let other = LAKE.replace("01234567", "76543210");
    let (found, hint) = rig.told(&other, "event_data_store");
    assert!(
        found.starts_with("failed: GetEventDataStore was answered EventDataStoreNotFoundException"),
        "{found}"
    );
    assert!(hint.contains("`event_data_store`"), "{hint}");
    let (found, hint) = rig.told(LAKE, "event_data_store");
    assert!(
        found.starts_with("warning: trail: STOPPED_INGESTION"),
        "{found}"
    );
    assert!(hint.contains("start ingestion"), "{hint}");
}

#[test]
fn a_table_of_athena_that_does_not_fit_is_told() {
    let rig = Rig::of_athena(json!({"layout": "year_month_day", "key_exchange": false}));
    let source = format!("{ATHENA}{RESULTS}");
    let (found, hint) = rig.told(&source, "partitions");
    assert_eq!(found, "failed: by region, year, month, day");
    assert_eq!(hint, "set `layout = \"year_month_day\"`");
    let (found, hint) = rig.told(&source, "columns");
    assert_eq!(found, "warning: tlsdetails has no keyexchange");
    assert!(hint.contains("keyexchange:STRING"), "{hint}");
    let right = format!("{source}layout = \"year_month_day\"\n");
    assert!(rig.told(&right, "partitions").0.starts_with("ok: "));
    assert!(rig.told(&right, "records").0.starts_with("ok: "));
    let lake = format!("{source}layout = \"lake\"\n");
    let (found, hint) = rig.told(&lake, "columns");
    assert_eq!(found, "failed: eventtime is a string");
    assert!(hint.contains("`layout = \"lake\"`"), "{hint}");
    let other = source.replace("cloudtrail_logs", "other");
    let (found, hint) = rig.told(&other, "table");
    assert!(
        found.starts_with("failed: GetTableMetadata was answered MetadataException"),
        "{found}"
    );
    assert!(hint.contains("`database`"), "{hint}");
}

#[test]
fn where_results_of_athena_go_is_told() {
    let rig = Rig::of_athena(json!({"layout": "timestamp"}));
    let (found, hint) = rig.told(ATHENA, "work_group");
    assert_eq!(found, "failed: primary says nowhere for results to go");
    assert!(hint.contains("`output_location`"), "{hint}");
    let (found, _) = rig.told(ATHENA, "start_query_execution");
    assert_eq!(found, "skipped: not tried, as work_group failed");
    let (found, _) = rig.told(&format!("{ATHENA}workgroup = \"other\"\n"), "work_group");
    assert!(found.contains("WorkGroup other is not found"), "{found}");

    let group = |more: Value| {
        let mut group = json!({"name": "primary", "account": ACCOUNT, "region": REGION});
        for (member, value) in more.as_object().unwrap() {
            group[member] = value.clone();
        }
        rig.0.post("workgroups", &json!([group]));
    };
    group(json!({"output_location": "s3://own/", "enforce": true, "cutoff_bytes": 20_971_520}));
    let (found, _) = rig.told(ATHENA, "work_group");
    assert_eq!(
        found,
        "ok: primary: results go to s3://own/; a query may scan 20.0 MiB at most"
    );
    let (found, hint) = rig.told(&format!("{ATHENA}{RESULTS}"), "work_group");
    assert!(
        found.starts_with("warning: primary enforces that results go to s3://own/"),
        "{found}"
    );
    assert!(hint.contains("has no effect"), "{hint}");
    group(json!({"managed": true}));
    let (found, hint) = rig.told(&format!("{ATHENA}{RESULTS}"), "work_group");
    assert_eq!(found, "failed: primary keeps results itself");
    assert!(hint.contains("leave `output_location` out"), "{hint}");
    assert!(rig.told(ATHENA, "records").0.starts_with("ok: "));
    group(json!({"output_location": "s3://own/", "cutoff_bytes": 1}));
    let (found, hint) = rig.told(ATHENA, "query");
    assert!(found.contains("Bytes scanned limit"), "{found}");
    assert!(hint.contains("raise the workgroup's limit"), "{hint}");
}

#[test]
fn where_nothing_arrives_or_no_tls_details_do_is_told() {
    let rig = Rig::new();
    rig.0.group(json!({}));
    let (found, hint) = rig.told(LOGS, "records");
    assert!(found.starts_with("failed: none from "), "{found}");
    assert!(hint.contains("does the trail log"), "{hint}");
    let (found, _) = rig.told(LOGS, "positive_control");
    assert_eq!(found, "skipped: not tried, as records failed");
    assert!(rig.told(LOGS, "cost").0.contains("by what is stored"));

    rig.deliver(&json!({"log_group": GROUP}), &["none"]);
    let (found, hint) = rig.told(LOGS, "tls_details");
    assert_eq!(
        found,
        "failed: 0 of 180 have tlsDetails (0 %), 0 with a key exchange"
    );
    assert!(hint.contains("`parse_json = true`"), "{hint}");
    let (found, hint) = rig.told(LOGS, "positive_control");
    assert_eq!(found, "failed: 0 on TLS 1.2 or newer (none 180)");
    assert!(hint.contains("would prove nothing"), "{hint}");

    let (found, hint) = rig.told(HISTORY, "records");
    assert!(found.starts_with("failed: none from "), "{found}");
    assert!(hint.contains("us-east-1"), "{hint}");
}

#[test]
fn clocks_that_differ_are_told() {
    let rig = Rig::of_logs(json!({}));
    for (behind, words) in [(120_i64, "2m ahead of AWS's"), (-120, "2m behind AWS's")] {
        rig.0
            .set_clock(Timestamp::from_secs(Timestamp::now().secs() - behind));
        let (found, hint) = rig.told(LOGS, "clock");
        // Seconds may pass on the way.
        let about = ["2m", "1m 59s", "2m 1s"].map(|age| words.replace("2m", age));
        let fits = about
            .iter()
            .any(|words| found == format!("warning: the host's clock is {words}"));
        assert!(fits, "{found}");
        assert!(hint.contains("NTP"), "{hint}");
    }
}

#[test]
fn a_clock_that_is_so_far_off_that_nothing_is_allowed_is_told_too() {
    let rig = Rig::of_logs(json!({}));
    rig.0.set_clock(Timestamp::now().minus(20 * MINUTE));
    for source in [LOGS, HISTORY] {
        let (found, _) = rig.told(source, "clock");
        assert!(
            found.starts_with("warning: the host's clock is 20m") || found.contains("is 19m 59s"),
            "{found}"
        );
    }
}

#[test]
fn a_query_that_never_ends_is_stopped() {
    let rig = Rig::of_logs(json!({}));
    rig.0.fault("StartQuery", 1, json!({"query": "forever"}));
    let (found, hint) = rig.told(&format!("{LOGS}timeout = \"10s\"\n"), "query");
    assert_eq!(found, "failed: the query was stopped after 10s");
    assert!(hint.contains("`timeout`"), "{hint}");
    assert_eq!(rig.0.stats()["queries"][0]["stopped"], true);
}

#[test]
fn json_has_the_same_facts_in_one_document() {
    let rig = Rig::of_logs(json!({"retentionInDays": 30}));
    rig.deny("StopQuery");
    let both = format!("{}[[sources]]\n{HISTORY}", rig.source(LOGS));
    let sts = [("AWS_ENDPOINT_URL_STS", rig.0.endpoint.as_str())];
    let environment = [&ENVIRONMENT[..], &sts].concat();
    let (code, text, error) = doctor(&both, &["--json", "--source=logs"], &environment);
    assert_eq!((code, error.ends_with("failed\n")), (1, true), "{text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        told["summary"]["failed"].as_u64().map(|it| it >= 1),
        Some(true)
    );
    let sources = told["sources"].as_array().unwrap();
    let [logs] = &sources[..] else {
        panic!("{text}")
    };
    assert_eq!(
        (
            &logs["source"],
            &logs["type"],
            &logs["region"],
            &logs["role"]
        ),
        (
            &json!("logs"),
            &json!("logs_insights"),
            &json!(REGION),
            &Value::Null
        )
    );
    let check = |name: &str| {
        let mut checks = logs["checks"].as_array().unwrap().iter();
        checks
            .find(|check| check["check"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(check("stop_query")["verdict"], "failed");
    assert_eq!(
        check("stop_query")["hint"]
            .as_str()
            .unwrap()
            .split(' ')
            .nth(1),
        Some("logs:StopQuery")
    );
    assert_eq!(check("records")["verdict"], "ok");
    assert_eq!(check("records")["facts"]["records"], 180);
    assert_eq!(check("records")["hint"], Value::Null);
    assert_eq!(check("retention")["facts"]["days"], 30);
    assert_eq!(
        check("tls_details")["facts"]["records_with_tls_details"],
        120
    );
    let versions = json!({"TLSv1.1": 60, "TLSv1.3": 60, "none": 60});
    assert_eq!(check("positive_control")["facts"]["versions"], versions);
    assert_eq!(check("clock")["facts"]["ahead_seconds"], 0);
    let scanned = check("cost")["facts"]["scanned_bytes"].as_u64().unwrap();
    assert_eq!(check("cost")["facts"]["day_bytes"], scanned * 24);
    assert_eq!(check("query")["facts"]["scanned_bytes"], scanned);
}

#[test]
fn a_budget_is_compared_with_what_a_day_takes() {
    let rig = Rig::of_logs(json!({}));
    for (budget, verdict) in [("1GiB", "ok"), ("100KiB", "warning")] {
        let source = format!("{LOGS}budget_bytes_per_day = \"{budget}\"\n");
        let (code, text, error) = rig.doctor(&source, &[]);
        assert_eq!(code, 0, "{text}{error}");
        let told = text.lines().find(|line| line.contains(" budget "));
        let told = told.unwrap_or_else(|| panic!("{text}"));
        assert!(told.trim_start().starts_with(verdict), "{told}");
        assert_eq!(
            text.contains("raise `budget_bytes_per_day`"),
            verdict == "warning"
        );
    }
    assert!(!rig.doctor(LOGS, &[]).1.contains(" budget "));
}

#[test]
fn each_region_of_a_source_is_looked_at() {
    let rig = Rig::of_logs(json!({}));
    let source = format!("{LOGS}regions = [\"eu-west-1\", \"us-east-1\"]\n");
    let (code, text, error) = rig.doctor(&source, &[]);
    assert_eq!(code, 1, "{text}{error}");
    let (first, second) = text
        .split_once("logs (logs_insights) in us-east-1\n")
        .unwrap();
    assert!(
        first.starts_with("logs (logs_insights) in eu-west-1\n"),
        "{text}"
    );
    assert!(!first.contains("  failed "), "{first}");
    assert!(second.contains("failed   log_group"), "{second}");
}

#[test]
fn a_wrong_configuration_or_an_unknown_source_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, error) = doctor(&files(folder.path()), &["--source=logs"], &[]);
    let told = "error: no source is named `logs`; there are: trail\n";
    assert_eq!((code, out.as_str(), error.as_str()), (2, "", told));
    let (code, out, error) = doctor("[[sources]]\nname = \"x\"\n", &[], &[]);
    let told = "error: the configuration has 1 problem\n  sources[0].type: is missing\n";
    assert_eq!((code, out.as_str(), error.as_str()), (2, "", told));
}
