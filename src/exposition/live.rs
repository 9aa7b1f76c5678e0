//! The live block: the exporter's own metrics, rendered anew at each scrape.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::negotiate::Format;
use super::text::{self, Kind};

/// The text of `families`, and the end of the body.
pub(super) fn render(families: &[MetricFamily], format: Format) -> Vec<u8> {
    let mut out = String::new();
    for family in families {
        write_family(&mut out, family, format).expect("a String takes all text");
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out.into_bytes()
}

fn write_family(out: &mut String, family: &MetricFamily, format: Format) -> std::fmt::Result {
    let name = family.name();
    let kind = match family.get_field_type() {
        MetricType::COUNTER => Kind::Counter,
        MetricType::HISTOGRAM => Kind::Histogram,
        // Metrics registers nothing but gauges beside these two.
        _ => Kind::Gauge,
    };
    text::head(out, name, kind, family.help(), format);
    for metric in family.get_metric() {
        match kind {
            Kind::Counter => sample(out, name, metric, None, metric.get_counter().get_value())?,
            Kind::Gauge => sample(out, name, metric, None, metric.get_gauge().get_value())?,
            Kind::Histogram => write_histogram(out, name, metric, format)?,
        }
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "samples are floats in both formats"
)]
fn write_histogram(
    out: &mut String,
    name: &str,
    metric: &Metric,
    format: Format,
) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count() as f64;
    let bucket = format!("{name}_bucket");
    for step in histogram.get_bucket() {
        let bound = step.upper_bound();
        // OpenMetrics writes bounds as floats.
        let bound = match format {
            Format::OpenMetrics if bound.fract() == 0.0 => format!("{bound:.1}"),
            _ => bound.to_string(),
        };
        sample(
            out,
            &bucket,
            metric,
            Some(&bound),
            step.cumulative_count() as f64,
        )?;
    }
    sample(out, &bucket, metric, Some("+Inf"), count)?;
    sample(
        out,
        &format!("{name}_sum"),
        metric,
        None,
        histogram.get_sample_sum(),
    )?;
    sample(out, &format!("{name}_count"), metric, None, count)
}

fn sample(
    out: &mut String,
    name: &str,
    metric: &Metric,
    bound: Option<&str>,
    value: f64,
) -> std::fmt::Result {
    out.push_str(name);
    let mut open = '{';
    let labels = metric
        .get_label()
        .iter()
        .map(|label: &LabelPair| (label.name(), label.value()));
    for (key, label) in labels.chain(bound.map(|bound| ("le", bound))) {
        write!(out, "{open}{key}=\"")?;
        text::push_escaped(out, label);
        out.push('"');
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    writeln!(out, " {value}")
}
