// Draws one panel with Grafana's components, with the options and in the way of Grafana's own panels.

import { getDisplayValueAlignmentFactors, getFieldDisplayValues } from "@grafana/data";
import { BigValue, TimeSeries, useTheme2, VizRepeater } from "@grafana/ui";
import { TableNG } from "@grafana/ui/unstable";

export function Panel({ panel, frames, range, width, height, show }) {
  const Drawn = DRAWN[panel.type];
  return <Drawn {...{ panel, frames, range, width, height, show }} />;
}

function Nothing({ panel, height }) {
  return (
    <div className="nothing" style={{ height }}>
      {panel.fieldConfig.defaults.noValue ?? "No data"}
    </div>
  );
}

function Lines({ panel, frames, range, width, height }) {
  if (frames.length === 0) {
    return <Nothing panel={panel} height={height} />;
  }
  return (
    <TimeSeries
      frames={frames}
      timeRange={range}
      timeZone="utc"
      width={width}
      height={height}
      legend={panel.options.legend}
    />
  );
}

function Table({ panel, frames, range, width, height }) {
  if (frames.length === 0 || frames[0].length === 0) {
    return <Nothing panel={panel} height={height} />;
  }
  const { sortBy, cellHeight, footer } = panel.options;
  return (
    <TableNG
      data={frames[0]}
      width={width}
      height={height}
      timeRange={range}
      sortBy={sortBy}
      cellHeight={cellHeight}
      enablePagination={footer?.enablePagination}
      fieldConfig={panel.fieldConfig}
      enableVirtualization={false}
    />
  );
}

// One value beside the other, as many as there are series.
function Values({ panel, frames, width, height, show, children }) {
  const theme = useTheme2();
  const values = () =>
    getFieldDisplayValues({
      data: frames,
      fieldConfig: panel.fieldConfig,
      reduceOptions: panel.options.reduceOptions,
      replaceVariables: show,
      timeZone: "utc",
      theme,
    });
  return (
    <VizRepeater
      getValues={values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={(drawn) => children({ ...drawn, theme })}
      width={width}
      height={height}
      source={frames}
      autoGrid={true}
      renderCounter={1}
      orientation={panel.options.orientation ?? "auto"}
    />
  );
}

function Stat(props) {
  const { colorMode, graphMode, textMode, wideLayout = true } = props.panel.options;
  return (
    <Values {...props}>
      {({ value, width, height, theme, count, alignmentFactors, orientation }) => (
        <BigValue
          value={value.display}
          count={count}
          colorMode={colorMode}
          graphMode={graphMode}
          justifyMode="auto"
          textMode={textMode}
          disableWideLayout={!wideLayout}
          alignmentFactors={alignmentFactors}
          parentOrientation={orientation}
          width={width}
          height={height}
          theme={theme}
        />
      )}
    </Values>
  );
}

// The arc is drawn here: @grafana/ui has no gauge any more. The value, its text and its colours are Grafana's.
function Gauge(props) {
  return (
    <Values {...props}>
      {({ value, width, height, theme, count }) => <Arc {...{ value, width, height, theme, count }} />}
    </Values>
  );
}

const FROM = -120;
const SWEEP = 240;

function Arc({ value: { display, field }, width, height, theme, count }) {
  const named = count > 1 ? 20 : 0;
  const radius = Math.min(width / 2, (height - named) / 1.55) - 6;
  const [x, y] = [width / 2, radius + 6];
  const share = Math.min(Math.max(display.percent ?? 0, 0), 1);
  const steps = field.thresholds?.steps ?? [];
  const at = (number) => Math.min(Math.max((number - field.min) / (field.max - field.min), 0), 1);
  return (
    <svg width={width} height={height}>
      <path d={arc(x, y, radius - 10, 0, 1)} stroke={theme.colors.background.secondary} strokeWidth="14" fill="none" />
      {Number.isFinite(display.numeric) && (
        <path d={arc(x, y, radius - 10, 0, share)} stroke={display.color} strokeWidth="14" fill="none" />
      )}
      {steps.map((step, index) => (
        <path
          key={step.value}
          d={arc(x, y, radius, at(step.value), index + 1 < steps.length ? at(steps[index + 1].value) : 1)}
          stroke={theme.visualization.getColorByName(step.color)}
          strokeWidth="3"
          fill="none"
        />
      ))}
      <text x={x} y={y + radius / 7} textAnchor="middle" fontSize={radius * 0.36} fontWeight="500" fill={display.color}>
        {display.text}
        {display.suffix}
      </text>
      {count > 1 && (
        <text x={x} y={height - 4} textAnchor="middle" fontSize="14" fill={theme.colors.text.primary}>
          {display.title}
        </text>
      )}
    </svg>
  );
}

function arc(x, y, radius, from, to) {
  const point = (share) => {
    const angle = ((FROM + share * SWEEP - 90) * Math.PI) / 180;
    return `${x + radius * Math.cos(angle)} ${y + radius * Math.sin(angle)}`;
  };
  return `M ${point(from)} A ${radius} ${radius} 0 ${(to - from) * SWEEP > 180 ? 1 : 0} 1 ${point(to)}`;
}

const DRAWN = { timeseries: Lines, table: Table, stat: Stat, gauge: Gauge };
