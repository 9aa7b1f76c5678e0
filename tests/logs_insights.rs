//! Logs Insights against the double: exact whatever the engine does, and no byte paid for twice.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aws::{FAMILIES, MINUTE, Rig, lines, truth};
use cloudtrail_tls_exporter::source::logs_insights::Form;
use cloudtrail_tls_exporter::time::Timestamp;
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(86_400);

fn start_of_day() -> Timestamp {
    Timestamp::parse("2026-06-01T00:00:00Z").unwrap()
}

/// What nobody could confirm of AWS, all one way …
fn one_way() -> Value {
    json!({"missing_key": "absent", "end_inclusive": "millisecond", "ptr_in_rows": false,
        "number_format": "plain", "statistics": "all", "boolean": "1/0", "not_equal_absent": false,
        "ia_discovers_fields": true, "literal_in_coalesce": "ok", "field_order": "as_written"})
}

/// … and all the other.
fn the_other_way() -> Value {
    json!({"missing_key": "empty", "end_inclusive": "second", "ptr_in_rows": true,
        "number_format": "scientific", "statistics": "three", "boolean": "true/false", "not_equal_absent": true,
        "ia_discovers_fields": false, "literal_in_coalesce": "refused", "field_order": "shuffled"})
}

/// Records of the real trail and of a made one with old versions and key exchanges; `None` where they are not.
fn folders(home: &Path, records: u32) -> Option<[std::path::PathBuf; 2]> {
    let real = support::shared("data/cloudtrail/AWSLogs")?;
    let made = home.join("made");
    let mut python = Command::new("python3");
    python.arg(support::shared("tools/scale.py")?);
    python
        .arg("--files=10")
        .arg(format!("--records={}", records / 10));
    python.args([
        "--accounts=111122223333,444455556666",
        "--mix=TLSv1.1=0.05,TLSv1=0.02,ABSENT=0.1",
    ]);
    python.args(["--kex=X25519MLKEM768=0.3,x25519=0.5", "--templates"]);
    programs::run_well(
        python
            .arg(support::shared("data/cloudtrail")?)
            .arg("--out")
            .arg(&made),
        b"",
    );
    Some([real, made])
}

/// Runs a day of five-minute ticks and compares every label set of the scrape with the truth.
fn a_day_is_exact(switches: Value, form: Form) {
    let start = start_of_day();
    let mut rig = Rig::new(start);
    let Some(folders) = folders(rig.home.path(), 1000) else {
        return;
    };
    rig.double.switch(switches);
    let events = rig.deliver_folders(start, start.plus(DAY), 6, &[&folders[0], &folders[1]]);
    rig.setup.engine.form = form;
    rig.setup.engine.most_rows = 10;
    rig.setup.engine.page = 7;
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    rig.run(&mut life, 5 * MINUTE, start.plus(DAY + 10 * MINUTE));

    let scrape = life.scrape();
    let watermark = start.plus(DAY + 5 * MINUTE);
    let expected = truth(&events, start, watermark, watermark.minus(DAY));
    assert!(expected.len() > 1000, "only {} samples", expected.len());
    assert_eq!(lines(&scrape, &FAMILIES), expected);
    let told = scrape.value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[]);
    assert_eq!(told, Some(watermark.secs() as f64));
    rig.double.assert_sound();
    rig.end(life);
}

#[test]
fn after_a_day_every_label_set_is_the_truth_with_small_limits_and_late_deliveries() {
    a_day_is_exact(one_way(), Form::Fields);
}

#[test]
fn what_nobody_could_confirm_of_aws_may_be_either_way() {
    a_day_is_exact(the_other_way(), Form::Json);
}
