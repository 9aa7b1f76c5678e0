// What a dashboard is found to lack while it is drawn: one list, in the order of drawing.

export class Findings {
  constructor() {
    this.list = [];
  }

  // `kind` is a short name that expected.py can speak of; `where` is a panel's title or a variable's name.
  add(kind, where, detail) {
    if (!this.list.some((known) => known.kind === kind && known.where === where && known.detail === detail)) {
      this.list.push({ kind, where, detail });
    }
  }
}
