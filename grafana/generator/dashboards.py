"""All dashboards, as the texts of their files."""

import json

import exporter
import migration
import overview
import service

ALL = {
    "overview.json": overview.DASHBOARD,
    "service.json": service.DASHBOARD,
    "migration.json": migration.DASHBOARD,
    "exporter.json": exporter.DASHBOARD,
}


def texts() -> dict[str, str]:
    return {name: json.dumps(made, indent=2, ensure_ascii=False) + "\n" for name, made in ALL.items()}
