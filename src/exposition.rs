//! What Prometheus reads. The data block is rendered once for each change, in pieces that every format
//! and encoding shares; a scrape adds the small live block and copies nothing of the data.

mod data;
mod gzip;
mod live;
pub mod negotiate;
mod text;

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::proto::MetricFamily;

pub use self::data::{CallerSettings, Number, Settings};
use self::gzip::Piece;
use self::negotiate::Format;
use crate::metrics::Metrics;
use crate::totals::{Change, Totals};

/// How long a rendering waits for further changes, at the least; a costly one waits longer.
const PAUSE: Duration = Duration::from_millis(500);

/// One family of the data block: its HELP and TYPE lines in each format, and its samples, which are the
/// same in both.
#[derive(Debug)]
struct Family {
    text_head: Piece,
    open_metrics_head: Piece,
    samples: Piece,
}

/// The rendered data block.
#[derive(Debug, Default)]
pub struct Block {
    families: Vec<Family>,
}

impl Block {
    /// A scrape's body: this block, then `live` rendered now, as slices to be sent one after the other.
    pub fn body(&self, live: &[MetricFamily], format: Format, gzip: bool) -> Vec<Bytes> {
        let live = live::render(live, format);
        let pieces = self.families.iter().flat_map(|family| {
            let head = match format {
                Format::Text => &family.text_head,
                Format::OpenMetrics => &family.open_metrics_head,
            };
            [head, &family.samples]
        });
        if gzip {
            gzip::joined(pieces, &live)
        } else {
            pieces
                .map(|piece| piece.plain.clone())
                .chain([Bytes::from(live)])
                .collect()
        }
    }
}

enum Message {
    Change(Change),
    /// Instead of all before.
    Anew(Settings, Vec<Change>),
    /// Answered when all that was sent before is rendered.
    Settled(Sender<()>),
}

/// Renders the totals on a thread of its own and holds the newest block for the scrapes.
#[derive(Clone, Debug)]
pub struct Publisher {
    messages: Sender<Message>,
    newest: Arc<RwLock<Arc<Block>>>,
}

impl Publisher {
    /// Starts the thread. It ends with the last clone of the publisher.
    pub fn start(settings: Settings, metrics: Metrics) -> std::io::Result<Self> {
        let (messages, queue) = mpsc::channel();
        let newest = Arc::new(RwLock::new(Arc::new(Block::default())));
        let shared = Arc::clone(&newest);
        let publish =
            move |block| *shared.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(block);
        let run = move || render_changes(&queue, settings, &metrics, publish);
        thread::Builder::new()
            .name("exposition".into())
            .spawn(run)?;
        Ok(Self { messages, newest })
    }

    /// Takes in what a commit changed; the next rendering shows it.
    pub fn change(&self, change: Change) {
        // The thread ends only after every sender is gone.
        self.messages.send(Message::Change(change)).ok();
    }

    /// Shows `totals` instead of all before, by these settings. Until they are rendered, scrapes get the block before.
    pub fn show_anew(&self, settings: Settings, totals: Vec<Change>) {
        self.messages.send(Message::Anew(settings, totals)).ok();
    }

    /// Waits until all that was changed before is rendered.
    pub fn settle(&self) {
        let (answer, settled) = mpsc::channel();
        self.messages.send(Message::Settled(answer)).ok();
        settled.recv().ok();
    }

    /// The newest block.
    pub fn newest(&self) -> Arc<Block> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn render_changes(
    queue: &Receiver<Message>,
    mut settings: Settings,
    metrics: &Metrics,
    publish: impl Fn(Block),
) {
    let mut totals = Totals::default();
    let mut pause = PAUSE;
    while let Ok(first) = queue.recv() {
        let mut waiting = Vec::new();
        let mut changed = false;
        let mut next = Some(first);
        // What arrives within the pause is rendered together, unless somebody waits for it.
        let pause_ends = Instant::now() + pause;
        while let Some(message) = next {
            match message {
                Message::Change(change) => {
                    changed |= change.is_visible();
                    totals.apply(change);
                }
                Message::Anew(new, all) => {
                    changed = true;
                    settings = new;
                    totals = Totals::default();
                    all.into_iter().for_each(|change| totals.apply(change));
                }
                Message::Settled(answer) => waiting.push(answer),
            }
            let left = pause_ends.saturating_duration_since(Instant::now());
            let left = if waiting.is_empty() && changed {
                left
            } else {
                Duration::ZERO
            };
            next = queue.recv_timeout(left).ok();
        }
        if changed {
            let started = Instant::now();
            let (block, numbers) = data::render(&totals, &settings);
            publish(block);
            for number in numbers {
                metrics.rendered(number.family, number.series, number.folded, number.limit);
            }
            pause = PAUSE.max(started.elapsed() * 2);
        }
        for answer in waiting {
            answer.send(()).ok();
        }
    }
}
