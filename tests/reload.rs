//! Reloads of the running program: what changed is followed, what did not is left alone, what is wrong changes nothing.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloudtrail_tls_exporter::time::Timestamp;
use serde_json::json;
use support::made::{self, Made};
use support::{Answer, BINARY, Exporter, Scrape, request, wait_for};
use tempfile::TempDir;

const SUCCESSFUL: &str = "cloudtrail_tls_exporter_config_last_reload_successful";
const LOADED: &str = "cloudtrail_tls_exporter_config_last_reload_success_timestamp_seconds";

/// A folder with a configuration, a store and a trail for each source of files.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// Writes the configuration: the store, and what is given.
    fn write(&self, more: &str) -> PathBuf {
        let config = self.path("config.toml");
        let state = self.path("state.db");
        fs::write(
            &config,
            format!("state.path = '{}'\n{more}", state.display()),
        )
        .unwrap();
        config
    }

    /// A source of files over its own folder.
    fn files(&self, name: &str, more: &str) -> String {
        let location = self.path(name);
        fs::create_dir_all(&location).unwrap();
        format!(
            "[[sources]]\nname = \"{name}\"\ntype = \"trail_files\"\nlocation = '{}'\ninterval = \"1s\"\n{more}\n",
            location.display()
        )
    }

    /// Delivers a file to a source of files.
    fn deliver(&self, source: &str, records: &[Made]) {
        let unique = format!("{:016x}", fastrand::u64(..));
        made::deliver(
            &made::path(&self.path(source), Timestamp::now(), &unique),
            records,
        );
    }
}

/// Some calls of now.
fn calls(number: usize, version: &'static str) -> Vec<Made> {
    let now = Timestamp::now();
    let call = |_| Made::new("s3", "GetObject", version, now);
    (0..number).map(call).collect()
}

fn counted(scrape: &Scrape, source: &str) -> f64 {
    scrape.sum("cloudtrail_tls_calls_total", &[("source", source)])
}

fn wait_for_calls(exporter: &Exporter, source: &str, number: f64) -> Scrape {
    exporter.scrape_until(&format!("{number} calls of {source}"), |scrape| {
        (counted(scrape, source) == number).then(|| scrape.clone())
    })
}

/// Asks for a reload, and waits for its lines in the log, which arrive a little later than the answer.
fn post(exporter: &Exporter) -> Answer {
    let before = outcomes(exporter);
    let answer = request(exporter.address, "POST", "/-/reload", &[]);
    wait_for_outcome(exporter, before);
    answer
}

fn outcomes(exporter: &Exporter) -> usize {
    told(exporter, "message=reloaded") + told(exporter, "not reloaded")
}

fn wait_for_outcome(exporter: &Exporter, before: usize) {
    wait_for("the outcome in the log", || {
        (outcomes(exporter) > before).then_some(())
    });
}

/// Reloads by `POST`, which must be answered well.
fn reload(exporter: &Exporter) {
    let answer = post(exporter);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "reloaded\n"),
        "{:#?}",
        exporter.log()
    );
}

/// How often the log holds a text.
fn told(exporter: &Exporter, text: &str) -> usize {
    let log = exporter.log();
    log.iter().filter(|line| line.contains(text)).count()
}

/// Waits until the log holds a text so often.
fn wait_for_told(exporter: &Exporter, text: &str, times: usize) {
    wait_for(text, || (told(exporter, text) >= times).then_some(()));
    assert_eq!(told(exporter, text), times, "{text}");
}

/// Reloads by SIGHUP and waits for the outcome.
fn hangup(exporter: &Exporter) {
    let before = outcomes(exporter);
    exporter.signal("HUP");
    wait_for_outcome(exporter, before);
}

fn own(scrape: &Scrape, name: &str, source: &str) -> Option<f64> {
    let name = format!("cloudtrail_tls_exporter_{name}");
    scrape.value(&name, &[("source", source)])
}

#[test]
fn both_ways_start_what_is_new_and_leave_alone_what_is_not() {
    let home = Home::new();
    let a = home.files("a", "");
    let exporter = Exporter::start(&home.write(&a));
    home.deliver("a", &calls(3, "TLSv1.2"));
    let first = wait_for_calls(&exporter, "a", 3.0);
    assert_eq!(first.value(SUCCESSFUL, &[]), Some(1.0));
    let started = first.value(LOADED, &[]).unwrap();

    home.write(&(home.files("b", "") + "# as before\n" + &a));
    home.deliver("b", &calls(4, "TLSv1.2"));
    reload(&exporter);
    let second = wait_for_calls(&exporter, "b", 4.0);
    assert_eq!(counted(&second, "a"), 3.0);
    let bytes = |scrape: &Scrape, source| own(scrape, "scanned_bytes_total", source);
    assert_eq!(
        bytes(&second, "a"),
        bytes(&first, "a"),
        "nothing is read anew"
    );
    assert!(second.value(LOADED, &[]).unwrap() >= started);
    wait_for_told(&exporter, "message=workers kept=1 stopped=0 started=1", 1);
    assert_eq!(
        own(&exporter.scrape(), "source_up", "a"),
        Some(1.0),
        "it goes on"
    );

    home.write(&(a + &home.files("c", "")));
    home.deliver("c", &calls(5, "TLSv1.2"));
    hangup(&exporter);
    wait_for_calls(&exporter, "c", 5.0);
    wait_for_told(&exporter, "message=workers kept=1 stopped=1 started=1", 1);

    for method in ["GET", "HEAD", "DELETE"] {
        let refused = request(exporter.address, method, "/-/reload", &[]);
        assert_eq!(refused.status, 405, "{method}");
        assert_eq!(refused.header("allow"), "POST, PUT");
    }
    let answer = request(exporter.address, "PUT", "/-/reload", &[]);
    assert_eq!(answer.status, 200);
    wait_for_told(&exporter, "message=workers kept=2 stopped=0 started=0", 1);
    let requests = [("path", "/-/reload"), ("code", "200")];
    let answered = exporter.scrape();
    let answered = answered.value("cloudtrail_tls_exporter_http_requests_total", &requests);
    assert_eq!(answered, Some(2.0));
}

#[test]
fn a_wrong_configuration_changes_nothing_and_tells_every_problem_until_it_is_right() {
    let home = Home::new();
    let right = home.files("a", "");
    let config = home.write(&right);
    let exporter = Exporter::start(&config);
    home.deliver("a", &calls(3, "TLSv1.2"));
    let loaded = wait_for_calls(&exporter, "a", 3.0).value(LOADED, &[]);

    home.write(
        &(home.files("b", "interval = \"often\"\nlookbak = \"1h\"")
            + "[window]\nlength = \"7s\"\n"),
    );
    let wrong = fs::read_to_string(&config)
        .unwrap()
        .replacen("interval = \"1s\"\n", "", 1);
    fs::write(&config, wrong).unwrap();
    let mut check = Command::new(BINARY);
    check.args(["check-config", "--config.file", config.to_str().unwrap()]);
    let checked = String::from_utf8(check.output().unwrap().stderr).unwrap();
    let answer = post(&exporter);
    assert_eq!(answer.status, 500);
    assert_eq!(format!("error: {}", answer.text()), checked);
    assert_eq!(answer.text().lines().count(), 4, "{checked}");
    for problem in ["often", "lookbak", "window.length"] {
        let line = |line: &&String| line.contains("level=error") && line.contains(problem);
        assert!(exporter.log().iter().any(|l| line(&l)), "{problem}");
    }
    let scrape = exporter.scrape();
    assert_eq!(scrape.value(SUCCESSFUL, &[]), Some(0.0));
    assert_eq!(scrape.value(LOADED, &[]), loaded);
    assert_eq!(exporter.get("/-/ready", &[]).status, 200);

    home.deliver("a", &calls(2, "TLSv1.2"));
    let scrape = wait_for_calls(&exporter, "a", 5.0);
    assert_eq!(counted(&scrape, "b"), 0.0);
    fs::remove_file(&config).unwrap();
    hangup(&exporter);
    assert_eq!(exporter.scrape().value(SUCCESSFUL, &[]), Some(0.0));

    home.write(&right);
    hangup(&exporter);
    let scrape = exporter.scrape();
    assert_eq!(scrape.value(SUCCESSFUL, &[]), Some(1.0));
    assert_eq!(counted(&scrape, "a"), 5.0);
}

#[test]
fn what_the_store_cannot_follow_is_refused_all_at_once() {
    let home = Home::new();
    let right = home.files("a", "") + &home.files("b", "");
    let exporter = Exporter::start(&home.write(&right));
    home.deliver("a", &calls(3, "TLSv1.2"));
    wait_for_calls(&exporter, "a", 3.0);
    let query = |name: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\ntype = \"logs_insights\"\nlog_groups = [\"g\"]\nregion = \"eu-west-1\"\n"
        )
    };
    home.write(&format!(
        "window.bucket = \"1m\"\n{}{}",
        query("a"),
        query("b")
    ));
    let answer = post(&exporter);
    assert_eq!(answer.status, 500);
    let finer = "`window.bucket` is finer than the store's 5m: counts cannot be divided; set it back, or start a new store";
    let other = |name| {
        format!(
            "source `{name}` is stored with the type `trail_files`: a source of another type needs another `name`"
        )
    };
    let expected = format!(
        "the configuration has 3 problems\n  {finer}\n  {}\n  {}\n",
        other("a"),
        other("b")
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(
        told(&exporter, "message=workers"),
        1,
        "no worker was touched"
    );
    home.deliver("a", &calls(2, "TLSv1.2"));
    let scrape = wait_for_calls(&exporter, "a", 5.0);
    assert_eq!(scrape.value(SUCCESSFUL, &[]), Some(0.0));

    // A source that is gone keeps its name for its type, as its rows are still there.
    home.write(&home.files("b", ""));
    reload(&exporter);
    home.write(&(query("a") + &home.files("b", "")));
    assert_eq!(post(&exporter).status, 500);
    // A coarser grid may follow, and then not the finer one.
    home.write(&format!("window.bucket = \"15m\"\n{right}"));
    reload(&exporter);
    wait_for_calls(&exporter, "a", 5.0);
    home.write(&right);
    assert!(
        post(&exporter)
            .text()
            .contains("finer than the store's 15m")
    );
}

#[test]
fn a_source_that_is_gone_leaves_the_scrape_and_counts_on_when_it_is_back() {
    let home = Home::new();
    let (a, b) = (home.files("a", ""), home.files("b", ""));
    let exporter = Exporter::start(&home.write(&(a.clone() + &b)));
    home.deliver("a", &calls(3, "TLSv1.1"));
    home.deliver("b", &calls(7, "TLSv1.1"));
    wait_for_calls(&exporter, "a", 3.0);
    wait_for_calls(&exporter, "b", 7.0);
    assert!(exporter.get("/", &[]).text().contains("<td>b</td>"));

    home.write(&a);
    reload(&exporter);
    let gone = exporter.scrape();
    let left: Vec<_> = gone.0.keys().collect();
    let left = left
        .iter()
        .filter(|(_, labels)| labels.get("source").is_some_and(|source| source == "b"));
    assert_eq!(left.count(), 0, "{gone:?}");
    assert_eq!(counted(&gone, "a"), 3.0);
    assert!(!exporter.get("/", &[]).text().contains("<td>b</td>"));

    home.deliver("b", &calls(2, "TLSv1.1"));
    exporter.wait_for_scans(2);
    home.write(&(a + &b));
    reload(&exporter);
    // The first scrape has what was stored, not a start from 0.
    assert!(counted(&exporter.scrape(), "b") >= 7.0);
    let scrape = wait_for_calls(&exporter, "b", 9.0);
    assert_eq!(
        scrape.sum("cloudtrail_tls_outdated_window_calls", &[("source", "b")]),
        9.0
    );
}

#[test]
fn settings_of_all_are_followed_and_the_counters_stay() {
    let home = Home::new();
    let source = home.files("a", "");
    let exporter = Exporter::start(&home.write(&source));
    home.deliver("a", &[calls(4, "TLSv1.2"), calls(2, "TLSv1.3")].concat());
    let before = wait_for_calls(&exporter, "a", 6.0);
    let outdated = "cloudtrail_tls_outdated_window_calls";
    assert_eq!(before.sum(outdated, &[]), 0.0);
    let history = |scrape: &Scrape| own(scrape, "history_start_timestamp_seconds", "a").unwrap();
    let changed = wait_for("a later second", || {
        let now = Timestamp::now().secs() as f64;
        (now > history(&before)).then_some(now)
    });

    home.write(&format!("tls.minimum_version = \"TLSv1.3\"\n{source}"));
    reload(&exporter);
    let raised = exporter.scrape();
    assert_eq!(raised.sum(outdated, &[]), 4.0);
    assert_eq!(
        raised
            .of("cloudtrail_tls_outdated_since_timestamp_seconds", &[])
            .count(),
        1
    );
    assert!(history(&raised) >= changed, "history begins at the change");
    assert_eq!(raised.calls(), before.calls());
    // What is committed from now on is told by it as well.
    let other = Made::new("kms", "Decrypt", "TLSv1.2", Timestamp::now());
    home.deliver("a", &[other]);
    let later = wait_for_calls(&exporter, "a", 7.0);
    assert_eq!(later.sum(outdated, &[("aws_service", "kms")]), 1.0);
    let since = "cloudtrail_tls_outdated_since_timestamp_seconds";
    assert_eq!(later.of(since, &[("aws_service", "kms")]).count(), 1);

    home.write(&format!(
        "series.labels = [\"aws_region\"]\nwindow.length = \"48h\"\nregression.quiet_period = \"1d\"\nstate.retention = \"30d\"\n{source}"
    ));
    reload(&exporter);
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.sum(outdated, &[]),
        0.0,
        "TLSv1.2 is the minimum again"
    );
    for (labels, _) in scrape.of("cloudtrail_tls_calls_total", &[]) {
        assert_eq!(labels["aws_region"], "eu-west-1");
        assert!(!labels.contains_key("account_id"));
    }
    assert_eq!(
        scrape.value("cloudtrail_tls_window_seconds", &[]),
        Some(48.0 * 3600.0)
    );
    assert_eq!(scrape.calls(), later.calls());
    home.deliver("a", &calls(1, "TLSv1.3"));
    wait_for_calls(&exporter, "a", 8.0);
}

#[test]
fn the_log_level_is_followed_and_what_needs_a_restart_is_refused_by_name() {
    let home = Home::new();
    let source = home.files("a", "");
    let all = |level: &str, address: &str, more: &str| {
        format!("log.level = \"{level}\"\nweb.listen_addresses = [\"{address}\"]\n{more}{source}")
    };
    let config = home.write(&all("info", "127.0.0.1:0", ""));
    // Without the flags, which would win.
    let mut bare = Command::new("sh");
    bare.args(["-c", "exec \"$1\" \"$2\" \"$3\"", "sh"]);
    let exporter = Exporter::start_by(bare, &config).unwrap();
    wait_for_told(&exporter, "message=workers", 1);
    assert_eq!(told(&exporter, "level=debug"), 0);
    home.write(&all("debug", "127.0.0.1:0", ""));
    reload(&exporter);
    wait_for("a line for debugging", || {
        (told(&exporter, "message=\"batch committed\"") > 0).then_some(())
    });

    let other = home.path("other.db");
    fs::write(
        &config,
        all(
            "debug",
            "127.0.0.1:1",
            &format!(
                "log.format = \"json\"\nstate.path = '{}'\n",
                other.display()
            ),
        ),
    )
    .unwrap();
    let answer = post(&exporter);
    assert_eq!(answer.status, 500);
    let expected = format!(
        "the configuration has 3 problems\n  \
         state.path = {other:?}: needs a restart; until then {:?} is in force\n  \
         web.listen_addresses = [\"127.0.0.1:1\"]: needs a restart; until then [\"127.0.0.1:0\"] is in force\n  \
         log.format = \"json\": needs a restart; until then \"logfmt\" is in force\n",
        home.path("state.db"),
    );
    assert_eq!(answer.text(), expected);
    home.write(&all("debug", "127.0.0.1:0", "state.ephemeral = true\n"));
    let expected = "state.ephemeral = true: needs a restart; until then false is in force";
    assert!(post(&exporter).text().contains(expected));
    assert!(!other.exists());

    home.write(&all("error", "127.0.0.1:0", ""));
    let answer = request(exporter.address, "POST", "/-/reload", &[]);
    assert_eq!(answer.status, 200);
    // The last line before the level was changed.
    wait_for_told(&exporter, "message=workers", 3);
    let lines = exporter.log().len();
    exporter.wait_for_scans(3);
    assert_eq!(exporter.log()[lines..], [] as [String; 0]);
}

#[test]
fn flags_win_over_a_reloaded_file() {
    let home = Home::new();
    let source = home.files("a", "");
    let exporter = Exporter::start(&home.write(&source));
    home.write(&format!(
        "log.level = \"error\"\nweb.listen_addresses = [\"127.0.0.1:1\"]\n{source}"
    ));
    reload(&exporter);
    let before = told(&exporter, "level=debug");
    wait_for("a line for debugging", || {
        (told(&exporter, "level=debug") > before).then_some(())
    });
    assert_eq!(exporter.get("/-/ready", &[]).status, 200);
}

#[test]
fn a_demo_has_nothing_to_reload_and_ends_with_its_terminal() {
    let exporter = Exporter::start_with(&["demo"]);
    exporter.wait_for_ready();
    let answer = request(exporter.address, "POST", "/-/reload", &[]);
    assert_eq!(answer.status, 404);
    assert_eq!(exporter.get("/-/reload", &[]).status, 404);
    let (status, _, log) = exporter.end_with("HUP");
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(
        log.iter()
            .any(|line| line.contains("message=stopping signal=SIGHUP"))
    );
}

#[test]
fn a_reload_that_takes_long_is_waited_for_while_scrapes_go_on() {
    let home = Home::new();
    let source = home.files("a", "");
    let config = home.write(&source);
    let exporter = Exporter::start(&config);
    let text = fs::read_to_string(&config).unwrap();
    // A file that is a pipe: it is read when somebody writes.
    fs::remove_file(&config).unwrap();
    let made = Command::new("mkfifo").arg(&config).status().unwrap();
    assert!(made.success());
    thread::scope(|scope| {
        let answer = scope.spawn(|| post(&exporter));
        // Longer than any client may take for its part.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(14) {
            assert_eq!(exporter.get("/metrics", &[]).status, 200);
            thread::sleep(Duration::from_millis(100));
        }
        assert!(!answer.is_finished());
        fs::write(&config, &text).unwrap();
        assert_eq!(answer.join().unwrap().status, 200);
    });
}

/// Log groups of now in two Regions, with so many calls each.
fn deliver_logs(double: &aws::Double, calls: &[(&str, usize)]) {
    for (region, number) in calls {
        let group = json!([{"name": aws::GROUP, "account": aws::ACCOUNT, "region": region, "creationTime": 0}]);
        double.post("groups", &group);
        let at = Timestamp::now().minus(aws::HOUR).floor(5 * aws::MINUTE);
        let records = (0..*number).map(|_| aws::record("s3", "GetObject", "TLSv1.2", at));
        let place = json!({"log_group": aws::GROUP, "account": aws::ACCOUNT, "region": region});
        double.deliver(&place, at, &Vec::from_iter(records));
    }
}

fn logs(double: &aws::Double, more: &str) -> String {
    format!(
        "[[sources]]\nname = \"logs\"\ntype = \"logs_insights\"\nlog_groups = [\"{}\"]\nendpoint_url = \"{}\"\n\
         lookback = \"2h\"\n{more}\n",
        aws::GROUP,
        double.endpoint
    )
}

fn start_over(double: &aws::Double, config: &Path) -> Exporter {
    assert!(double.endpoint.starts_with("http://"));
    let exporter = Exporter::start_in(
        &["--config.file", config.to_str().unwrap()],
        &aws::ENVIRONMENT,
    );
    exporter.wait_for_ready();
    exporter
}

#[test]
fn a_query_in_flight_survives_the_reload_of_another_source_and_is_stopped_with_its_own() {
    let double = aws::Double::start();
    deliver_logs(&double, &[(aws::REGION, 6)]);
    double.switch(json!({"polls_running": 100_000}));
    let home = Home::new();
    let exporter = start_over(
        &double,
        &home.write(&(home.files("a", "") + &logs(&double, ""))),
    );
    let asked = |operation| aws::calls(&double.stats(), operation);
    wait_for("the query", || {
        (asked("StartQuery") == 1 && asked("GetQueryResults") > 1).then_some(())
    });

    for interval in ["2s", "3s", "4s"] {
        let other = home
            .files("a", "")
            .replace("\"1s\"", &format!("\"{interval}\""));
        home.write(&(other + &logs(&double, "")));
        reload(&exporter);
    }
    home.write(&(home.files("b", "") + &logs(&double, "")));
    hangup(&exporter);
    let polls = asked("GetQueryResults");
    wait_for("the query to be looked at again", || {
        (asked("GetQueryResults") > polls + 1).then_some(())
    });
    assert_eq!(
        (asked("StartQuery"), asked("StopQuery")),
        (1, 0),
        "left alone"
    );

    // Its own settings stop it; the next worker asks anew, which does not take as long.
    double.switch(json!({"polls_running": 0}));
    home.write(&(home.files("b", "") + &logs(&double, "price_per_gib = 0.5")));
    reload(&exporter);
    assert_eq!(asked("StopQuery"), 1);
    let scrape = wait_for_calls(&exporter, "logs", 6.0);
    assert_eq!(
        scrape.sum("cloudtrail_tls_exporter_batch_failures_total", &[]),
        0.0
    );
    assert_eq!((asked("StartQuery"), asked("StopQuery")), (2, 1));
    double.assert_sound();
}

#[test]
fn regions_come_and_go_one_by_one_and_no_counter_goes_down() {
    let double = aws::Double::start();
    let (eu, us) = ("eu-west-1", "us-east-1");
    deliver_logs(&double, &[(eu, 6), (us, 3)]);
    let home = Home::new();
    let in_regions = |regions: &[&str]| logs(&double, &format!("regions = {regions:?}"));
    let exporter = start_over(&double, &home.write(&in_regions(&[eu, us])));
    let both = wait_for_calls(&exporter, "logs", 9.0);
    let asked = || aws::calls(&double.stats(), "StartQuery");
    let window = |scrape: &Scrape| scrape.sum("cloudtrail_tls_window_calls", &[]);
    assert_eq!(window(&both), 9.0);
    let queries = asked();

    home.write(&in_regions(&[eu]));
    reload(&exporter);
    let one = exporter.scrape();
    let of = |scrape: &Scrape, region| {
        let workers = scrape
            .0
            .keys()
            .filter(|(_, labels)| labels.get("worker_region").is_some_and(|of| of == region));
        workers.count()
    };
    assert_eq!(of(&one, us), 0);
    assert_eq!(of(&one, eu), of(&both, eu));
    assert_eq!(counted(&one, "logs"), 9.0, "a counter never goes down");
    assert_eq!(window(&one), 6.0, "the gauges have what is asked for");
    wait_for_told(&exporter, "message=workers kept=1 stopped=1 started=0", 1);

    home.write(&in_regions(&[us, eu]));
    reload(&exporter);
    let again = exporter.scrape_until("the Region that is back", |scrape| {
        (own_up(scrape, us) == Some(1.0)).then(|| scrape.clone())
    });
    assert_eq!(counted(&again, "logs"), 9.0);
    assert_eq!(window(&again), 9.0);
    assert_eq!(asked(), queries, "nothing is asked for again");
    double.assert_sound();
}

fn own_up(scrape: &Scrape, region: &str) -> Option<f64> {
    scrape.value(
        "cloudtrail_tls_exporter_source_up",
        &[("worker_region", region)],
    )
}

/// Every sample of a counter or a histogram.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let ends = ["_total", "_bucket", "_count", "_sum"];
    let counts =
        |line: &&str| !line.starts_with('#') && ends.iter().any(|end| name(line).ends_with(end));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    };
    text.lines().filter(counts).map(sample).collect()
}

#[test]
fn a_storm_of_reloads_loses_no_scrape_and_counts_each_call_once() {
    let home = Home::new();
    let a = home.files("a", "");
    let with_b = |interval: &str| {
        a.clone()
            + &home
                .files("b", "")
                .replace("\"1s\"", &format!("\"{interval}\""))
    };
    let exporter = Exporter::start(&home.write(&with_b("1s")));
    let (mut truth_a, mut truth_b) = (Vec::new(), Vec::new());
    let over = AtomicBool::new(false);
    let scrapes = thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let (mut before, mut scrapes) = (BTreeMap::new(), 0);
            while !over.load(Ordering::Relaxed) {
                let answer = exporter.get("/metrics", &[]);
                assert_eq!(answer.status, 200);
                let now = counters(&answer.text());
                for (series, value) in &before {
                    let later = now.get(series).copied().unwrap_or(f64::NAN);
                    assert!(later >= *value, "{series}: {value}, then {later}");
                }
                (before, scrapes) = (now, scrapes + 1);
            }
            scrapes
        });
        let mut random = fastrand::Rng::with_seed(7);
        let mut reloads = 0;
        for round in 0..20 {
            for (source, truth) in [("a", &mut truth_a), ("b", &mut truth_b)] {
                let now = Timestamp::now();
                let made: Vec<Made> = (0..50).map(|_| Made::any(&mut random, now)).collect();
                home.deliver(source, &made);
                truth.extend(made);
            }
            home.write(&with_b(if round % 2 == 0 { "2s" } else { "1s" }));
            match round % 4 {
                0 => hangup(&exporter),
                // Two at once: the second waits.
                1 => thread::scope(|both| {
                    both.spawn(|| reload(&exporter));
                    both.spawn(|| reload(&exporter));
                }),
                _ => reload(&exporter),
            }
            reloads += if round % 4 == 1 { 2 } else { 1 };
            wait_for_told(&exporter, "message=reloaded", reloads);
            thread::sleep(Duration::from_millis(random.u64(..700)));
        }
        for (source, truth) in [("a", &truth_a), ("b", &truth_b)] {
            wait_for_calls(&exporter, source, truth.len() as f64);
        }
        over.store(true, Ordering::Relaxed);
        scraper.join().unwrap()
    });
    assert!(scrapes > 50, "{scrapes}");
    exporter.wait_for_scans(3);
    let scrape = exporter.scrape();
    for (source, truth) in [("a", &truth_a), ("b", &truth_b)] {
        let samples = scrape.0.iter();
        let of_source =
            samples.filter(|((_, labels), _)| labels.get("source").is_some_and(|of| of == source));
        let of_source = Scrape(
            of_source
                .map(|(series, value)| (series.clone(), *value))
                .collect(),
        );
        assert_eq!(of_source.calls(), made::truth(truth));
    }
    // Only what changed was started anew.
    wait_for_told(&exporter, "message=workers kept=1 stopped=1 started=1", 20);
    assert_eq!(
        scrape.sum("cloudtrail_tls_exporter_batch_failures_total", &[]),
        0.0
    );
}
