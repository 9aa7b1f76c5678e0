"""What the dashboards may lack in the scripted history: everything else fails the run.

Which panels have no data in which chapters, and why, is told where the tests of the same history hold their queries
to it.
"""

from test_queries import EMPTY_LABELS, WITHOUT_DATA


def expected(board: str, chapter: str, finding: dict) -> bool:
    if finding["kind"] in ("legend label without a series", "column without a series"):
        return finding["detail"] in EMPTY_LABELS
    return finding["kind"] == "no data" and finding["where"] in _without_data(board, chapter)


def unexpected_data(board: str, chapter: str, findings: list[dict]) -> list[str]:
    """Panels that are to be empty and are not."""
    empty = {finding["where"] for finding in findings if finding["kind"] == "no data"}
    return sorted(_without_data(board, chapter) - empty)


def _without_data(board: str, chapter: str) -> set[str]:
    return {title for (file, title), (chapters, _) in WITHOUT_DATA.items() if file == board and chapter in chapters}
