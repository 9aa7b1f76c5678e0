//! The command line: exit codes, what stands in the help, and the exact text of every problem that
//! `check-config` tells. `tests/config` has a file for each rule.

#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cloudtrail_tls_exporter::batch::{Batch, ProgressChange};
use cloudtrail_tls_exporter::store::{Settings, Store, WorkerName};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::TlsVersion;
use programs::run;
use support::{BINARY, config};

/// What `check-config` tells of each `tests/config/*.bad.toml`, to the letter.
const PROBLEMS: &str = include_str!("config/problems.txt");

/// Exit code, stdout and stderr of the program in the project's folder, without any settings of the user's.
fn ran(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear();
    command.envs(environment.iter().copied());
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = run(&mut command, b"");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("no signal");
    (code, text(output.stdout), text(output.stderr))
}

fn check(file: &str, environment: &[(&str, &str)]) -> (i32, String, String) {
    ran(
        &["check-config", &format!("--config.file={file}")],
        environment,
    )
}

#[test]
fn every_rule_is_told_with_key_value_and_rule() {
    let mut wrong = Vec::new();
    for block in PROBLEMS.split("== ").skip(1) {
        let (name, told) = block.split_once('\n').unwrap();
        let found = check(&format!("tests/config/{name}.bad.toml"), &[]);
        if found != (2, String::new(), told.to_owned()) {
            wrong.push(format!("{name} should be\n{told}and is {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_of_the_folder_is_tried() {
    let folder = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config")).unwrap();
    let mut bad = BTreeSet::new();
    for entry in folder {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".bad.toml") {
            bad.insert(name.to_owned());
        } else if name != "problems.txt" {
            assert!(name.ends_with(".ok.toml"), "{name}");
            let (code, out, error) = check(&format!("tests/config/{name}"), &[]);
            assert_eq!((code, error.as_str()), (0, ""), "{name}");
            let told = format!("tests/config/{name} is valid: ");
            assert!(out.starts_with(&told), "{out}");
        }
    }
    let told = PROBLEMS
        .lines()
        .filter_map(|line| line.strip_prefix("== "))
        .map(str::to_owned);
    assert_eq!(bad, told.collect());
}

#[test]
fn a_valid_file_is_told_with_its_sources() {
    let found = check("tests/config/two_sources.ok.toml", &[]);
    let told = "tests/config/two_sources.ok.toml is valid: 2 source(s)\n  trail (trail_files), every 10s\n  \
                Other-trail_2.b (trail_files), every 1m 30s\n";
    assert_eq!(found, (0, told.to_owned(), String::new()));
    let found = check("config.example.toml", &[]);
    let told = "config.example.toml is valid: 5 source(s)\n  trail (trail_files), every 10s\n  \
                logs (logs_insights), every 5m\n  lake (lake), every 1h\n  athena (athena), every 1day\n  \
                history (event_history), every 5m\n";
    assert_eq!(found, (0, told.to_owned(), String::new()));
}

/// A store in which these workers of the source `logs` know what an hour takes; it stays open.
fn store_that_knows(path: &Path, workers: &[(&str, u64)]) -> Store {
    let day = Duration::from_secs(86_400);
    let settings = Settings {
        path: Some(path.to_owned()),
        retention: 35 * day,
        window: day,
        bucket: Duration::from_secs(300),
        minimum_version: TlsVersion::Tls12,
        quiet_period: 7 * day,
        series: Default::default(),
        callers: Default::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let store = Store::open(settings, |_| {}).unwrap();
    for (region, bytes) in workers {
        let name = WorkerName {
            source: "logs".into(),
            source_type: "logs_insights",
            account: String::new(),
            region: (*region).to_owned(),
        };
        let taken = |ask: &str, bytes: u64, seconds: u64| {
            format!(
                r#"{{"ask":"{ask}","control":false,"recount":false,"bytes":{bytes},"seconds":{seconds}}}"#
            )
        };
        // Six hours at once took no more, and another question took more.
        let rows = [
            taken("calls", *bytes, 21_600),
            taken("calls", *bytes, 3600),
            taken("calls_without_event_name", 100 * *bytes, 3600),
        ];
        let batch = Batch {
            progress: vec![ProgressChange::put(
                "estimates",
                format!("[{}]", rows.join(",")),
            )],
            ..Batch::default()
        };
        let now = Timestamp::now();
        runtime.block_on(async {
            let worker = store.worker(name, now).await.unwrap();
            store.commit(worker.id, Arc::new(batch), now).await.unwrap();
        });
    }
    store
}

#[test]
fn a_budget_below_what_counting_took_is_told_while_the_exporter_runs_and_after() {
    let home = tempfile::tempdir().unwrap();
    // A name that a URI would take for something else.
    let path = home.path().join("state 100%?#.db");
    let checked = |budget: &str, more: &str| {
        let file = home.path().join("config.toml");
        let toml = format!(
            "[state]\npath = '{}'\n[[sources]]\nname = \"trail\"\ntype = \"trail_files\"\nlocation = \"/a\"\n\
             [[sources]]\nname = \"logs\"\ntype = \"logs_insights\"\nlog_groups = [\"a\"]\ninterval = \"1h\"\n\
             budget_bytes_per_day = \"{budget}\"\n{more}",
            path.display()
        );
        fs::write(&file, toml).unwrap();
        let (code, out, error) = check(file.to_str().unwrap(), &[]);
        assert_eq!((code, error.as_str()), (0, ""), "{out}");
        let told = out
            .split_once("logs (logs_insights), every 1h\n")
            .unwrap()
            .1;
        told.to_owned()
    };
    let beside = || {
        let files = fs::read_dir(home.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with("state"))
            .collect::<BTreeSet<_>>()
    };
    let told = |needed: &str| {
        format!(
            "warning: sources[1].budget_bytes_per_day = 1.0 GiB: below what counting took lately, about {needed} a day: \
             the source will fall behind, and give up what is older than `catch_up_limit`\n"
        )
    };
    assert_eq!(checked("1GiB", ""), "");
    assert_eq!(beside(), BTreeSet::new(), "no store comes into being");

    let mib = 1024 * 1024;
    let store = store_that_knows(&path, &[("eu-west-1", 32 * mib), ("us-east-1", 32 * mib)]);
    let look = || {
        let files = beside();
        assert_eq!(checked("1GiB", ""), told("1.5 GiB"));
        assert_eq!(checked("1536MiB", ""), "");
        // A Region that is not asked any more needs nothing.
        assert_eq!(checked("1GiB", "regions = [\"us-east-1\", \"x\"]\n"), "");
        let one = checked("700MiB", "regions = [\"us-east-1\"]\n");
        assert!(one.contains("about 768.0 MiB a day"), "{one}");
        assert_eq!(beside(), files, "nothing comes into being beside the store");
        files.len()
    };
    // The lock, the log and its index are there while it runs.
    assert_eq!(look(), 4);
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(store.close());
    assert_eq!(look(), 2);

    fs::write(&path, "no store").unwrap();
    let note = checked("1GiB", "");
    let start = "warning: sources[1].budget_bytes_per_day: not compared with what was scanned, as ";
    assert!(note.starts_with(start), "{note}");
}

#[test]
fn the_environment_is_checked_with_the_file() {
    let file = "tests/config/least.ok.toml";
    assert_eq!(
        check(file, &[("CLOUDTRAIL_TLS__WINDOW__LENGTH", "12h")]).0,
        0
    );
    let found = check(
        file,
        &[
            ("CLOUDTRAIL_TLS__WINDOW__LENGHT", "12h"),
            ("CLOUDTRAIL_TLS__STATE__RETENTION", "1h"),
        ],
    );
    let told = "error: the configuration has 3 problems\n  \
                state.retention = \"1h\" (from the environment): must not be shorter than `regression.quiet_period`\n  \
                state.retention = \"1h\" (from the environment): must not be shorter than `window.length`\n  \
                window.lenght (from the environment): no such key; did you mean `window.length`?\n";
    assert_eq!(found, (2, String::new(), told.to_owned()));
}

#[test]
fn wrong_usage_is_told_on_stderr_with_exit_code_2() {
    for (arguments, told) in [
        (
            &[][..],
            "error: --config.file is missing; `demo` needs none, config.example.toml shows every key\n",
        ),
        (&["serve"], "error: --config.file is missing"),
        (
            &["--config.file=/nonexistent.toml"],
            "error: the configuration has 1 problem\n  cannot read /nonexistent.toml: No such file or directory (os error 2)\n",
        ),
        (
            &["check-config", "--config.file=/nonexistent.toml"],
            "error: the configuration has 1 problem\n  cannot read /nonexistent.toml: ",
        ),
        (
            &["check-config", "--config.file=src"],
            "error: the configuration has 1 problem\n  cannot read src: Is a directory (os error 21)\n",
        ),
        (&["check-config"], "--config.file <FILE>"),
        (&["doctor"], "--config.file <FILE>"),
        (
            &["doctor", "--config.file=/nonexistent.toml"],
            "error: the configuration has 1 problem\n  cannot read /nonexistent.toml: ",
        ),
        (
            &["--web.listen-adress=:1"],
            "tip: a similar argument exists: '--web.listen-address'",
        ),
        (
            &["chek-config"],
            "tip: a similar subcommand exists: 'check-config'",
        ),
        (
            &["--log.level=loud"],
            "must be `debug`, `info`, `warn` or `error`",
        ),
        (
            &[
                "--config.file=tests/config/least.ok.toml",
                "--web.config.file=tests/web_config/key_unknown.bad.yml",
            ],
            "error: the web configuration tests/web_config/key_unknown.bad.yml has 1 problem\n  ",
        ),
        (&["--log.format=xml"], "must be `logfmt` or `json`"),
        (&["--web.max-requests=0"], "must be a whole number from 1"),
        (
            &["demo", "--demo.legacy-after=soon"],
            "invalid value 'soon' for '--demo.legacy-after <DURATION>'",
        ),
    ] {
        let (code, out, error) = ran(arguments, &[]);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {error}");
        assert!(
            error.starts_with("error: ") && error.contains(told),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn what_fails_at_the_start_is_told_with_exit_code_1() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = config(home.path(), home.path(), "");
    let (code, out, error) = ran(
        &[
            "--config.file",
            file.to_str().unwrap(),
            "--log.level=error",
            &format!("--web.listen-address={address}"),
        ],
        &[],
    );
    let told = format!("error: cannot listen on {address}: Address already in use (os error 98)\n");
    assert_eq!((code, out, error), (1, String::new(), told.clone()));

    let (code, _, error) = ran(
        &[
            "--config.file",
            file.to_str().unwrap(),
            "--log.level=error",
            "--web.listen-address=127.0.0.1:0",
            &format!("--probe.listen-address={address}"),
        ],
        &[],
    );
    assert_eq!((code, error), (1, told));

    // A file where the folder of the store should be.
    let (code, _, error) = ran(
        &[
            "--config.file=tests/config/least.ok.toml",
            "--log.level=error",
            "--web.listen-address=127.0.0.1:0",
        ],
        &[("CLOUDTRAIL_TLS__STATE__PATH", "Cargo.toml/state.db")],
    );
    assert_eq!(
        (code, error.as_str()),
        (
            1,
            "error: cannot use the store Cargo.toml/state.db: File exists (os error 17)\n"
        )
    );
}

#[test]
fn version_and_help_are_told_on_stdout() {
    let (code, out, error) = ran(&["--version"], &[]);
    assert_eq!((code, error.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    let [first, rustc, platform] = lines[..] else {
        panic!("{out}")
    };
    let version = concat!(
        "cloudtrail-tls-exporter, version ",
        env!("CARGO_PKG_VERSION"),
        " (revision: "
    );
    assert!(
        first.starts_with(version) && first.ends_with(')'),
        "{first}"
    );
    assert!(rustc.starts_with("  rustc:    1."), "{rustc}");
    assert!(platform.starts_with("  platform: linux/"), "{platform}");

    let serve = [
        "--config.file",
        "--web.listen-address",
        "--web.max-requests",
        "--log.level",
        "--log.format",
        "--web.config.file",
        "--probe.listen-address",
    ];
    let demo = [
        "--demo.legacy-after",
        serve[1],
        serve[2],
        serve[3],
        serve[4],
    ];
    let check = [serve[0], "--web.config.file"];
    let doctor = [serve[0], "--json", "--source"];
    for (arguments, flags) in [
        (
            &["--help"][..],
            &[
                &serve[..],
                &["--version", "serve ", "check-config ", "doctor ", "demo "],
            ]
            .concat()[..],
        ),
        (&["serve", "--help"], &serve),
        (&["check-config", "--help"], &check),
        (&["doctor", "--help"], &doctor),
        (&["demo", "--help"], &demo),
    ] {
        let (code, help, error) = ran(arguments, &[]);
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
        for flag in flags {
            assert!(
                help.contains(&format!("  {flag}")),
                "{arguments:?} does not name {flag}: {help}"
            );
        }
        let named = help
            .split_whitespace()
            .filter(|word| word.starts_with("--"));
        let unknown: Vec<&str> = named
            .filter(|word| *word != "--help" && !flags.contains(word))
            .collect();
        assert!(
            unknown.is_empty(),
            "{arguments:?}: no test knows {unknown:?}"
        );
    }
}
