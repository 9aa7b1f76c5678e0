// Fills the registries that Grafana's server pages fill: transformations, field options, and the options of the panels.

import {
  booleanOverrideProcessor,
  dataLinksOverrideProcessor,
  displayNameOverrideProcessor,
  FieldConfigOptionsRegistry,
  identityOverrideProcessor,
  numberOverrideProcessor,
  selectOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from "@grafana/data";

export function register() {
  const known = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
  standardTransformersRegistry.setInit(() =>
    [...known.values()].map((one) => ({
      id: one.id,
      name: one.name,
      transformation: () => Promise.resolve(one),
      editor: () => null,
    }))
  );
}

const STANDARD = {
  unit: unitOverrideProcessor,
  min: numberOverrideProcessor,
  max: numberOverrideProcessor,
  decimals: numberOverrideProcessor,
  displayName: displayNameOverrideProcessor,
  color: identityOverrideProcessor,
  noValue: stringOverrideProcessor,
  links: dataLinksOverrideProcessor,
  mappings: valueMappingsOverrideProcessor,
  thresholds: thresholdsOverrideProcessor,
  filterable: booleanOverrideProcessor,
};

// The options of a field that each kind of panel adds, at Grafana's defaults.
const CUSTOM = {
  timeseries: {
    drawStyle: "line",
    lineInterpolation: "linear",
    lineWidth: 1,
    lineStyle: { fill: "solid" },
    fillOpacity: 0,
    gradientMode: "none",
    spanNulls: false,
    insertNulls: false,
    showPoints: "auto",
    pointSize: 5,
    stacking: { mode: "none", group: "A" },
    axisPlacement: "auto",
    axisLabel: "",
    axisColorMode: "text",
    axisBorderShow: false,
    axisCenteredZero: false,
    axisSoftMin: null,
    axisSoftMax: null,
    scaleDistribution: { type: "linear" },
    barAlignment: 0,
    barWidthFactor: 0.6,
    hideFrom: { viz: false, legend: false, tooltip: false },
    thresholdsStyle: { mode: "off" },
  },
  table: {
    align: "auto",
    cellOptions: { type: "auto" },
    filterable: false,
    inspect: false,
    width: null,
    minWidth: 50,
    hideFrom: { viz: false },
    wrapText: false,
    wrapHeaderText: false,
  },
  stat: {},
  gauge: {},
};

export const KINDS = [...Object.keys(CUSTOM), "row"];

const registries = new Map(
  Object.entries(CUSTOM).map(([kind, custom]) => [
    kind,
    new FieldConfigOptionsRegistry(() => [
      ...Object.entries(STANDARD).map(([id, process]) => option(id, id, process, false)),
      ...Object.keys(custom).map((path) => option(`custom.${path}`, path, selectOverrideProcessor, true)),
    ]),
  ])
);

function option(id, path, process, isCustom) {
  return { id, path, name: id, process, isCustom, shouldApply: () => true, override: () => null, editor: () => null };
}

export function fieldOptions(kind) {
  return registries.get(kind);
}

// The panel's field configuration with the defaults of its kind.
export function fieldConfig(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  return {
    defaults: { ...defaults, custom: { ...CUSTOM[panel.type], ...defaults.custom } },
    overrides: overrides.map((rule) => ({ ...rule, properties: rule.properties.flatMap(wrapped) })),
  };
}

// Since Grafana 12.2 it is the field that wraps, not the cell: its table moves what older dashboards say.
function wrapped(property) {
  const wraps = property.id === "custom.cellOptions" && property.value.wrapText;
  return wraps ? [property, { id: "custom.wrapText", value: true }] : [property];
}
