//! `demo`: the real exporter over a sample trail in a temporary folder. No AWS, no file of the user's.

use std::collections::HashMap;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use tracing::error;

use super::{Failure, serve, with_flags};
use crate::cli::Demo;
use crate::config::Config;
use crate::sample_trail::SampleTrail;
use crate::time::Timestamp;

const ADDRESS: &str = "127.0.0.1:10013";
/// How much clean history the sample trail has: longer than the quiet period, so that the legacy caller is
/// a regression.
const HISTORY: Duration = Duration::from_secs(9 * 86_400);
/// How often new files are delivered.
const DELIVERY: Duration = Duration::from_secs(2);

/// Serves the sample trail until a signal.
pub fn run(flags: &Demo, out: &mut dyn Write) -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("cloudtrail-tls-demo-")
        .tempdir()?;
    let toml = format!(
        "[window]\nbucket = \"1m\"\n[state]\npath = '{0}/state.db'\n[web]\nlisten_addresses = [\"{ADDRESS}\"]\n\
         [[sources]]\nname = \"demo\"\ntype = \"trail_files\"\nlocation = '{0}/trail'\ninterval = \"1s\"\nlookback = \"10d\"\n",
        folder.path().display()
    );
    let mut config = Config::parse(&toml, HashMap::new())?;
    with_flags(&mut config, &flags.web)?;

    let mut trail = SampleTrail::new(folder.path().join("trail"));
    let now = Timestamp::now();
    trail.write_history(now.minus(HISTORY), now)?;
    let (address, legacy_after) = (&config.listen_addresses[0], flags.legacy_after);
    writeln!(
        out,
        "Sample trail in {}: nine days of history, new files every {DELIVERY:?}.",
        folder.path().display()
    )?;
    writeln!(out, "Metrics:  http://{address}/metrics")?;
    writeln!(out, "Status:   http://{address}/")?;
    writeln!(
        out,
        "In {legacy_after:?} a caller on TLS 1.1 turns up; look for it with"
    )?;
    writeln!(out, "  curl -s http://{address}/metrics | grep 'TLSv1.1'")?;
    writeln!(out, "Ctrl-C ends it and removes the folder.")?;
    out.flush()?;

    let started = Instant::now();
    thread::Builder::new()
        .name("sample trail".into())
        .spawn(move || {
            loop {
                if let Err(error) =
                    trail.write_now(Timestamp::now(), started.elapsed() >= legacy_after)
                {
                    // The folder goes when the program ends.
                    return error!(
                        error = &error as &dyn std::error::Error,
                        "the sample trail ends"
                    );
                }
                thread::sleep(DELIVERY);
            }
        })?;
    serve::start(config, &flags.web)
}
