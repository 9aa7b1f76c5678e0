"""Colours, and the words for numbers: by TLS version, by what is good, by what is not there."""

from queries import BLIND

GREEN, YELLOW, ORANGE, RED, GREY = "green", "yellow", "orange", "red", "#8e8e8e"
VERSION_COLOURS = {
    "TLSv1": "dark-red",
    "TLSv1.1": RED,
    "TLSv1.2": YELLOW,
    "TLSv1.3": GREEN,
    "none": GREY,
    "unknown": "purple",
}
SHARE_COLOURS = {"TLS 1.3": GREEN, "Post-quantum": "blue"}
POST_QUANTUM_COLOURS = {"yes": GREEN, "no": ORANGE, "unreported": GREY}


def thresholds(*steps: tuple[float | None, str]) -> dict:
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}


NEUTRAL = thresholds((None, "blue"))
NONE_IS_GOOD = thresholds((None, GREEN), (1, RED))
# 0 is no verdict: it may be that of a blind source, and the headline has that.
FOUND = thresholds((None, "text"), (1, RED))
SOME_FOUND = thresholds((None, "text"), (1, YELLOW))
FEW_IS_GOOD = thresholds((None, GREEN), (1, YELLOW))
IN_TIME_IS_GOOD = thresholds((None, GREEN), (900, YELLOW), (3600, RED))  # seconds overdue
RECORDS_IN_TIME = thresholds((None, GREEN), (21600, RED))  # as the alert on a silent source has it
GOAL = 0.95  # of every share, unless a dashboard's target says otherwise
TOWARDS_ALL = thresholds((None, ORANGE), (0.5, YELLOW), (GOAL, GREEN))  # red is for what is outdated or broken


def shades_of(colour: str) -> dict:
    """For the lines of one kind: each in a shade of its own."""
    return {"mode": "shades", "fixedColor": colour}


OUTDATED_LINES = shades_of(RED)


def _fixed(pattern: str, colour: str) -> dict:
    colour_property = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": [colour_property]}


def _by_first_words(colours: dict[str, str]) -> list[dict]:
    return [_fixed("/^" + word.replace(".", "[.]") + "( |$)/", colour) for word, colour in colours.items()]


BY_VERSION = _by_first_words(VERSION_COLOURS)
BY_POST_QUANTUM = _by_first_words(POST_QUANTUM_COLOURS)
EXCHANGE_COLOURS = {"none": GREY, "unreported": "semi-dark-purple", "x25519": "blue", "secp256r1": ORANGE}
BY_KEY_EXCHANGE = _by_first_words(EXCHANGE_COLOURS) + [_fixed("/mlkem/", GREEN)]
BY_SHARE = _by_first_words(SHARE_COLOURS)
BY_WHAT_IS_LEFT = _by_first_words({"Outdated": RED, "Below TLS 1.3": YELLOW, "Not post-quantum": ORANGE})


def target_line(name: str) -> dict:
    made = _fixed(f"/^{name}$/", "text")
    made["properties"].append({"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}})
    return made


def coloured_words(colours: dict[str, str]) -> list[dict]:
    """For a column: a cell is coloured by its word."""
    words = {
        word: {"index": index, "text": word, "color": colour} for index, (word, colour) in enumerate(colours.items())
    }
    return [
        {"id": "mappings", "value": [{"type": "value", "options": words}]},
        {"id": "custom.cellOptions", "value": {"type": "color-text"}},
    ]


def words(*pairs: tuple[str, str, str]) -> list[dict]:
    """For a stat: (value, word, colour)."""
    options = {
        value: {"index": index, "text": word, "color": colour} for index, (value, word, colour) in enumerate(pairs)
    }
    return [{"type": "value", "options": options}]


# What panels say that are rightly empty. It must hold, too, where Prometheus has nothing at all: blind is not clean.
NONE_KNOWN = "none known"


def nothing(word: str, colour: str = GREY) -> dict:
    """What a number says where there is none. Without this it is in the colour of the lowest step: green, mostly."""
    result = {"index": 0, "text": word, "color": colour}
    return {"type": "special", "options": {"match": "null+nan", "result": result}}


SAYS_BLIND = words((str(BLIND), "blind", ORANGE))
