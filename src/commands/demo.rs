//! `demo`: the real exporter over a sample trail in a temporary folder. No AWS, no file of the user's.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::error;

use super::serve::{Plan, Program};
use super::{Failure, with_flags};
use crate::cli::Demo;
use crate::config::Config;
use crate::logging;
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
    let program = Program::new()?;
    let folder = tempfile::Builder::new()
        .prefix("cloudtrail-tls-demo-")
        .tempdir()?;
    let toml = format!(
        "[window]\nbucket = \"1m\"\n[state]\npath = '{0}/state.db'\n[web]\nlisten_addresses = [\"{ADDRESS}\"]\n\
         [[sources]]\nname = \"demo\"\ntype = \"trail_files\"\nlocation = '{0}/trail'\ninterval = \"1s\"\nlookback = \"10d\"\n",
        folder.path().display()
    );
    let config = with_flags(Config::parse(&toml, HashMap::new())?, &flags.web);
    logging::start(config.log)?;

    let mut trail = SampleTrail::new(folder.path().join("trail"));
    let now = Timestamp::now();
    trail.write_history(now.minus(HISTORY), now)?;
    tell(flags, &config, folder.path(), out)?;
    let legacy_after = flags.legacy_after;
    let started = Instant::now();
    let (stop, stopped) = mpsc::channel::<()>();
    let deliver = move || {
        loop {
            let legacy = started.elapsed() >= legacy_after;
            if let Err(error) = trail.write_now(Timestamp::now(), legacy) {
                return error!(error = &error as &dyn Error, "the sample trail ends");
            }
            if stopped.recv_timeout(DELIVERY) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    let writer = thread::Builder::new()
        .name("sample trail".into())
        .spawn(deliver)?;
    let outcome = program.run(Plan {
        config,
        scrapes: flags.web.max_requests,
        guard: None,
        probe_address: None,
        // There is no file to be read again.
        reload: None,
    });
    // The folder goes only when nobody writes into it any more.
    drop(stop);
    writer
        .join()
        .map_err(|_| "the sample trail's thread failed")?;
    folder.close()?;
    outcome
}

fn tell(flags: &Demo, config: &Config, folder: &Path, out: &mut dyn Write) -> io::Result<()> {
    let address = config
        .listen_addresses
        .first()
        .map_or(ADDRESS, String::as_str);
    // A port alone is every address of the host, this one among them.
    let address = if address.starts_with(':') {
        format!("localhost{address}")
    } else {
        address.to_owned()
    };
    let (folder, delivery, legacy) = (folder.display(), DELIVERY, flags.legacy_after);
    writeln!(
        out,
        "Sample trail in {folder}: nine days of history, new files every {delivery:?}."
    )?;
    writeln!(out, "Metrics:  http://{address}/metrics")?;
    writeln!(out, "Status:   http://{address}/")?;
    writeln!(
        out,
        "In {legacy:?} a caller on TLS 1.1 turns up; look for it with"
    )?;
    writeln!(out, "  curl -s http://{address}/metrics | grep 'TLSv1.1'")?;
    writeln!(out, "Ctrl-C ends it and removes the folder.")?;
    out.flush()
}
