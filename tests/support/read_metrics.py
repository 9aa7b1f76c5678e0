"""Reads a scrape on stdin with the parsers of prometheus-client and writes its samples as JSON.

The only argument is the format: `text` or `openmetrics`. What the parser refuses ends it with a traceback.
"""

import json
import sys

if sys.argv[1] == "openmetrics":
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
else:
    from prometheus_client.parser import text_string_to_metric_families as parse

families = parse(sys.stdin.buffer.read().decode("utf-8", "strict"))
samples = [
    {"name": sample.name, "labels": sample.labels, "value": sample.value, "kind": family.type, "help": family.documentation}
    for family in families
    for sample in family.samples
]
json.dump(samples, sys.stdout)
