"""Values of a result as Lake and Athena write them, and the names of their types."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal

TYPES = {
    "VARCHAR": "varchar",
    "HUGEINT": "bigint",  # DuckDB's sums and counts
    "BIGINT": "bigint",
    "INTEGER": "integer",
    "SMALLINT": "smallint",
    "TINYINT": "tinyint",
    "DOUBLE": "double",
    "FLOAT": "float",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "JSON": "json",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
}


def type_name(duckdb_type: str) -> str:
    if duckdb_type.endswith("[]"):
        return "array"
    return TYPES.get(duckdb_type) or re.split(r"\(", duckdb_type)[0].lower().replace("struct", "row")


def text(value: object) -> str | None:
    """None is NULL."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        shown = f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03}"
        return shown if value.tzinfo is None else f"{shown} UTC"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(text(item) or 'null' for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={text(member) or 'null'}" for name, member in value.items()) + "}"
    return str(value)


def double(value: float) -> str:
    """As Java writes it: 12.0, 1.5E9."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{Decimal(repr(value)):f}" if "e" in repr(value) else repr(value)
    digits, exponent = f"{Decimal(repr(value)).normalize():E}".split("E")
    return f"{digits if '.' in digits else digits + '.0'}E{int(exponent)}"
