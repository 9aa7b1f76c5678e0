// The page that Chromium opens: `drawBoard(input)` draws one dashboard and returns what is amiss with it.

import { createTheme, dateTime, setTimeZoneResolver } from "@grafana/data";
import { GlobalStyles, PanelChrome, ThemeContext } from "@grafana/ui";
import { Component } from "react";
import { createRoot } from "react-dom/client";
import { panelData } from "./data.js";
import { Findings } from "./findings.js";
import { Panel } from "./panels.jsx";
import { Prometheus } from "./prometheus.js";
import { KINDS, register } from "./registries.js";
import { Variables } from "./variables.js";
import "./page.css";

const COLUMNS = 24;
const GAP = 8;
const CELL = 30;
const SETTLED = 1500; // for icons and canvases, in milliseconds

const theme = createTheme({ colors: { mode: "dark" } });
setTimeZoneResolver(() => "utc");
register();

window.drawBoard = async ({ board, prometheus: address, from, to, scrapeInterval, width }) => {
  const findings = new Findings();
  const range = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
  const prometheus = new Prometheus(address, range, scrapeInterval);
  const variables = new Variables(findings);
  await variables.load(board, prometheus);

  const drawn = [];
  for (const panel of board.panels) {
    const place = placed(panel.gridPos, width - 2 * GAP);
    const title = variables.show(panel.title, panel.title);
    if (!KINDS.includes(panel.type)) {
      findings.add("unknown panel type", panel.title, panel.type);
    } else if (panel.type === "row") {
      drawn.push({ panel, place, title });
    } else {
      const frames = await panelData(panel, Math.round(place.width), { prometheus, variables, findings, theme });
      drawn.push({ panel, place, title, frames });
    }
  }

  const show = (text) => variables.show(text, board.title);
  createRoot(document.getElementById("board")).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Head board={board} texts={variables.texts} range={range} />
      <div className="grid" style={{ height: Math.max(...drawn.map(({ place }) => place.top + place.height)) }}>
        {drawn.map(({ panel, place, title, frames }) => (
          <div key={panel.id} style={{ position: "absolute", ...place }}>
            {panel.type === "row" ? (
              <h3 className="line">{title}</h3>
            ) : (
              <PanelChrome title={title} description={panel.description} width={place.width} height={place.height}>
                {(innerWidth, innerHeight) => (
                  <Caught onCrash={(error) => findings.add("render crash", panel.title, error.message)}>
                    <Panel {...{ panel, frames, range, show }} width={innerWidth} height={innerHeight} />
                  </Caught>
                )}
              </PanelChrome>
            )}
          </div>
        ))}
      </div>
    </ThemeContext.Provider>
  );
  await document.fonts.ready;
  await new Promise((done) => setTimeout(done, SETTLED));
  cutTexts(findings);
  return findings.list;
};

function placed({ x, y, w, h }, width) {
  const column = (width - GAP * (COLUMNS - 1)) / COLUMNS;
  return {
    left: x * (column + GAP),
    top: y * (CELL + GAP),
    width: w * column + (w - 1) * GAP,
    height: h * CELL + (h - 1) * GAP,
  };
}

function Head({ board, texts, range }) {
  const shown = board.templating.list.filter((variable) => !variable.hide);
  return (
    <header>
      <h1>{board.title}</h1>
      <div className="bar">
        {shown.map(({ name, label }) => (
          <span key={name} className="variable">
            <b>{label ?? name}</b> {texts.get(name)}
          </span>
        ))}
        <span className="range">
          {range.from.utc().format("HH:mm:ss")} to {range.to.utc().format("HH:mm:ss")} UTC
        </span>
      </div>
    </header>
  );
}

// A panel that throws must not take the page with it.
class Caught extends Component {
  state = { crashed: false };

  static getDerivedStateFromError() {
    return { crashed: true };
  }

  componentDidCatch(error) {
    this.props.onCrash(error);
  }

  render() {
    return this.state.crashed ? "crashed" : this.props.children;
  }
}

// A title that does not fit ends in dots on the wall.
function cutTexts(findings) {
  for (const title of document.querySelectorAll("h2")) {
    if (title.scrollWidth > title.clientWidth) {
      findings.add("title is cut", title.textContent, `${title.scrollWidth} of ${title.clientWidth} pixels`);
    }
  }
}
