// Asks Prometheus as Grafana's data source does, and makes data frames of the answers as it does.

import { createDataFrame, FieldType, rangeUtil } from "@grafana/data";

const LABEL_VALUES = /^label_values\((.+),\s*(\w+)\)$/s;
const LEGEND_LABEL = /\{\{\s*(.+?)\s*\}\}/g;

export function legendLabels(legend) {
  return [...(legend ?? "").matchAll(LEGEND_LABEL)].map((found) => found[1]);
}

export class Prometheus {
  // `address` is reached from the page; `range` has `from` and `to`; `scrapeInterval` is the data source's setting.
  constructor(address, range, scrapeInterval) {
    this.address = address;
    this.range = range;
    this.scrapeInterval = scrapeInterval;
  }

  async labelValues(query) {
    const found = query.match(LABEL_VALUES);
    if (!found) {
      throw new Error(`not label_values(selector, label): ${query}`);
    }
    const [, selector, label] = found;
    return this.ask(`label/${label}/values`, { "match[]": selector, ...this.span() });
  }

  span() {
    return { start: this.range.from.valueOf() / 1000, end: this.range.to.valueOf() / 1000 };
  }

  // The step of a target in a panel of `width` pixels, and what Grafana's variables are with it.
  steps(target, width) {
    const least = target.interval ?? this.scrapeInterval;
    const step = rangeUtil.calculateInterval(this.range, width, least).intervalMs / 1000;
    const scrape = rangeUtil.intervalToSeconds(least);
    const { start, end } = this.span();
    return {
      step,
      variables: {
        __interval: `${step}s`,
        __interval_ms: `${step * 1000}`,
        __rate_interval: `${Math.max(step + scrape, 4 * scrape)}s`,
        __range: `${Math.round(end - start)}s`,
        __range_s: `${Math.round(end - start)}`,
      },
    };
  }

  // The series of a target: `[{ labels, points: [[seconds, number]] }]`.
  async series(expr, step, instant) {
    const { start, end } = this.span();
    if (instant) {
      const { resultType, result } = await this.ask("query", { query: expr, time: end });
      return resultType === "scalar"
        ? [{ labels: {}, points: [point(result)] }]
        : result.map((one) => ({ labels: one.metric, points: [point(one.value)] }));
    }
    const grid = (time) => Math.floor(time / step) * step;
    const { result } = await this.ask("query_range", { query: expr, start: grid(start), end: grid(end), step });
    return result.map((one) => ({ labels: one.metric, points: one.values.map(point) }));
  }

  async ask(path, parameters) {
    const answer = await fetch(`${this.address}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const body = await answer.json();
    if (body.status !== "success") {
      throw new Error(body.error);
    }
    return body.data;
  }
}

function point([seconds, text]) {
  return [seconds, text === "NaN" ? NaN : Number(text.replace("Inf", "Infinity"))];
}

// A frame for each series, named by the legend.
export function seriesFrames(target, series, step) {
  return series.map(({ labels, points }) => {
    const named = (target.legendFormat ?? "").replace(LEGEND_LABEL, (_, label) => labels[label] ?? "");
    return createDataFrame({
      refId: target.refId,
      fields: [
        {
          name: "Time",
          type: FieldType.time,
          values: points.map(([seconds]) => seconds * 1000),
          config: { interval: step * 1000 },
        },
        {
          name: "Value",
          type: FieldType.number,
          values: points.map(([, value]) => value),
          labels,
          config: { displayNameFromDS: named || target.expr },
        },
      ],
    });
  });
}

// One frame with a column for each label; `of` targets share the table.
export function tableFrame(target, series, of) {
  const labels = [...new Set(series.flatMap((one) => Object.keys(one.labels)))].sort();
  const rows = series.flatMap((one) => one.points.map(([seconds, value]) => ({ labels: one.labels, seconds, value })));
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: "Time", type: FieldType.time, values: rows.map((row) => row.seconds * 1000), config: {} },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        values: rows.map((row) => row.labels[label] ?? ""),
        config: { filterable: true },
      })),
      {
        name: of > 1 ? `Value #${target.refId}` : "Value",
        type: FieldType.number,
        values: rows.map((row) => row.value),
        config: {},
      },
    ],
  });
}
