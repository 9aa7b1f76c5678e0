"""What the dashboards may lack in the scripted history, and why: everything else fails the run."""

CLEAN, LEGACY, MIGRATION, FAILING = "clean", "legacy", "migration", "failing"
ALWAYS = {CLEAN, LEGACY, MIGRATION, FAILING}

# Labels that no series of the history has: their columns and words in legends stay away.
ABSENT_LABELS = {
    "aws_region": "series.labels does not have it",
    "source_ip": "callers.labels does not have it",
    "worker_account": "a source of files has one worker, without account",
    "worker_region": "a source of files has one worker, without Region",
}

# Panels without data: in which chapters, and why.
EMPTY = {
    "overview.json": {
        "Latest run began": ({CLEAN}, "no outdated call was made yet"),
        "Last outdated call": ({CLEAN}, "no outdated call was made yet"),
        "Outdated, by account and service": ({CLEAN}, "no outdated call was made yet"),
        "Who: the busiest outdated callers": ({CLEAN, MIGRATION, FAILING}, "no outdated call is in the window"),
        "Outdated calls, by account": ({CLEAN}, "no outdated call was made yet"),
        "Outdated calls, by service": ({CLEAN}, "no outdated call was made yet"),
    },
    "service.json": {
        "Outdated since": ({CLEAN}, "no outdated call was made yet"),
        "Outdated calls, by name": ({CLEAN}, "no outdated call was made yet"),
        "Who: the busiest outdated callers": ({CLEAN, MIGRATION, FAILING}, "no outdated call is in the window"),
        "Outdated calls, by account and service": ({CLEAN}, "no outdated call was made yet"),
    },
    "exporter.json": {
        "Failures in an hour, by reason": ({CLEAN, LEGACY, MIGRATION}, "nothing failed yet"),
        "Clock ahead of AWS": (ALWAYS, "a source of files does not ask AWS"),
        "Budget used today": (ALWAYS, "a source of files has no budget"),
        "Budget exhausted": (ALWAYS, "a source of files has no budget"),
        "Bytes scanned and budget": (ALWAYS, "a source of files has no budget"),
        "AWS requests, by operation": (ALWAYS, "a source of files does not ask AWS"),
        "AWS errors in an hour": (ALWAYS, "a source of files does not ask AWS"),
    },
}


def expected(board: str, chapter: str, finding: dict) -> bool:
    if finding["kind"] in ("legend label without a series", "column without a series"):
        return finding["detail"] in ABSENT_LABELS
    chapters, _ = EMPTY.get(board, {}).get(finding["where"], (set(), ""))
    return finding["kind"] == "no data" and chapter in chapters


def unexpected_data(board: str, chapter: str, findings: list[dict]) -> list[str]:
    """Panels that are said to be empty and are not: the table above is out of date."""
    empty = {finding["where"] for finding in findings if finding["kind"] == "no data"}
    said = {title for title, (chapters, _) in EMPTY.get(board, {}).items() if chapter in chapters}
    return sorted(said - empty)
