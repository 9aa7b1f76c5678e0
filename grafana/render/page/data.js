// What a panel shows: its queries asked, its transformations and field options applied; and what is amiss with it.

import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  standardTransformersRegistry,
  transformDataFrame,
} from "@grafana/data";
import { firstValueFrom } from "rxjs";
import { legendLabels, seriesFrames, tableFrame } from "./prometheus.js";
import { fieldConfig, fieldOptions } from "./registries.js";

export async function panelData(panel, width, { prometheus, variables, findings, theme }) {
  const where = panel.title;
  const asked = await Promise.all(
    panel.targets.map((target) => ask(target, width, where, prometheus, variables, findings))
  );
  const ofTables = panel.targets.filter((target) => target.format === "table").length;
  const raw = panel.targets.flatMap((target, index) => {
    const { series, step } = asked[index];
    return target.format === "table" ? [tableFrame(target, series, ofTables)] : seriesFrames(target, series, step);
  });
  const kept = await transformed(panel, raw, where, variables, findings);
  const frames = applyFieldOverrides({
    data: kept,
    fieldConfig: fieldConfig(panel),
    fieldConfigRegistry: fieldOptions(panel.type),
    replaceVariables: (text) => text,
    theme,
    timeZone: "utc",
  });
  cacheFieldDisplayNames(frames);
  check(panel, asked, raw, frames, findings);
  linksOf(panel).forEach((link) => variables.checkLink(link.url, where, frames));
  return frames;
}

async function ask(target, width, where, prometheus, variables, findings) {
  const { step, variables: own } = prometheus.steps(target, width);
  const expr = variables.put(target.expr, where, own);
  try {
    return { step, series: await prometheus.series(expr, step, target.instant) };
  } catch (error) {
    findings.add("query error", where, `${target.refId}: ${error.message}`);
    return { step, series: [] };
  }
}

function linksOf({ links, fieldConfig: { defaults, overrides } }) {
  const properties = overrides.flatMap((rule) => rule.properties);
  const ofColumns = properties.filter(({ id }) => id === "links").flatMap(({ value }) => value);
  return [...links, ...(defaults.links ?? []), ...ofColumns];
}

async function transformed(panel, frames, where, variables, findings) {
  const steps = panel.transformations ?? [];
  for (const { id } of steps) {
    if (!standardTransformersRegistry.getIfExists(id)) {
      findings.add("unknown transformation", where, id);
    }
  }
  return steps.length === 0
    ? frames
    : firstValueFrom(transformDataFrame(steps, frames, { interpolate: (text) => variables.put(text, where) }));
}

function check(panel, asked, raw, frames, findings) {
  const where = panel.title;
  panel.targets.forEach((target, index) => {
    const { series } = asked[index];
    const several = panel.targets.length > 1;
    if (!series.some((one) => one.points.length > 0)) {
      findings.add("no data", where, several ? `query ${target.refId}` : "");
      return;
    }
    for (const label of legendLabels(target.legendFormat)) {
      if (!series.some((one) => one.labels[label] !== undefined)) {
        findings.add("legend label without a series", where, label);
      }
    }
  });
  if (frames.length === 0 || frames.every((frame) => frame.length === 0)) {
    return;
  }
  if (panel.type === "table" && frames.length > 1) {
    findings.add("table of several frames", where, `${frames.length}`);
  }
  const before = new Set(raw.flatMap((frame) => frame.fields.map((field) => field.name)));
  const after = new Set(frames.flatMap((frame) => frame.fields.map((field) => field.state.displayName ?? field.name)));
  for (const { id, options } of panel.transformations ?? []) {
    for (const [name, column] of Object.entries((id === "organize" && options.renameByName) || {})) {
      if (!before.has(name)) {
        findings.add("column without a series", where, name);
        after.add(column); // said once, and not again for what is set for it
      }
    }
  }
  for (const { matcher, properties } of panel.fieldConfig.overrides) {
    if (matcher.id === "byName" && !after.has(matcher.options)) {
      findings.add("override of an unknown field", where, matcher.options);
    }
    for (const { id } of properties) {
      if (!fieldOptions(panel.type).getIfExists(id)) {
        findings.add("unknown field option", where, id);
      }
    }
  }
  for (const { displayName } of panel.options.sortBy ?? []) {
    if (!after.has(displayName)) {
      findings.add("sorted by an unknown column", where, displayName);
    }
  }
}
