"""Writes the dashboards that stand beside this folder: `python3 grafana/generator`."""

from pathlib import Path

import dashboards

if __name__ == "__main__":
    for name, text in dashboards.texts().items():
        (Path(__file__).resolve().parent.parent / name).write_text(text, encoding="utf-8")
