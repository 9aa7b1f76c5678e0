// The variables of a dashboard as it opens: all values of each query variable, the default of each other.
//
// Grafana's own engine is part of its server's pages and not to be had: this one knows the kinds that the dashboards
// use, and tells of every other.

const VARIABLE = /\$(\w+)|\[\[(\w+?)(?::\w+)?\]\]|\$\{(\w+)(?:\.([^:}]+))?(?::[^}]+)?\}/g;

// What Grafana knows in links, besides the dashboard's variables.
const OF_LINKS = new Set(["__url_time_range", "__all_variables"]);

export class Variables {
  constructor(findings) {
    this.findings = findings;
    this.values = new Map();
    this.texts = new Map();
  }

  // Goes through the variables in order, as each may stand in the query of those after it.
  async load(board, prometheus) {
    for (const variable of board.templating.list) {
      const { name, type } = variable;
      if (type === "datasource") {
        this.set(name, "prometheus", "Prometheus");
      } else if (type === "custom") {
        this.set(name, variable.current.value, variable.current.text);
      } else if (type === "query") {
        this.set(name, variable.allValue, `All (${await this.offered(variable, prometheus)})`);
      } else {
        this.findings.add("unknown kind of variable", name, type);
      }
    }
  }

  // How many values the variable offers.
  async offered({ name, query }, prometheus) {
    try {
      const found = await prometheus.labelValues(this.put(query, `variable ${name}`));
      if (found.length === 0) {
        this.findings.add("variable without values", name, query);
      }
      return found.length;
    } catch (error) {
      this.findings.add("query error", `variable ${name}`, error.message);
      return 0;
    }
  }

  set(name, value, text) {
    this.values.set(name, value);
    this.texts.set(name, text);
  }

  // `text` with its variables put in; `more` are those of a query, such as `__rate_interval`.
  put(text, where, more = {}) {
    return this.replace(text, where, (name) => more[name] ?? this.values.get(name));
  }

  // As in `put`, with the words that Grafana shows: for titles.
  show(text, where) {
    return this.replace(text, where, (name) => this.texts.get(name)?.replace(/ \(\d+\)$/, ""));
  }

  replace(text, where, valueOf) {
    return text.replace(VARIABLE, (whole, plain, square, braced) => {
      const name = plain ?? square ?? braced;
      const value = valueOf(name);
      if (value === undefined) {
        this.findings.add("unknown variable", where, whole);
        return whole;
      }
      return value;
    });
  }

  // A link is not followed, but all that it names must be there: variables, columns of the row, labels of the series.
  checkLink(url, where, frames) {
    const fields = frames.filter((frame) => frame.length > 0).flatMap((frame) => frame.fields);
    for (const [whole, plain, square, braced, path] of url.matchAll(VARIABLE)) {
      const name = plain ?? square ?? braced;
      const [kind, wanted] = path?.split(/[.](.*)/s) ?? [];
      if (name === "__data" && kind === "fields") {
        if (fields.length > 0 && !fields.some((field) => (field.config.displayName ?? field.name) === wanted)) {
          this.findings.add("link to an unknown column", where, wanted);
        }
      } else if (name === "__field" && kind === "labels") {
        if (fields.length > 0 && !fields.some((field) => field.labels?.[wanted] !== undefined)) {
          this.findings.add("link to an unknown label", where, wanted);
        }
      } else if (!OF_LINKS.has(name) && !this.values.has(name)) {
        this.findings.add("unknown variable", where, whole);
      }
    }
  }
}
