"""The query language by itself: what it computes, and all that it refuses."""

import json
import unittest

from cwli import Options, Refused, compile_query
from cwli_values import Style, order, text
from events import Event, LogGroup
from harness import ACCOUNT, GROUP, REGION, T0, record


def run(query: str, *messages: dict | str, options: Options = Options(), discovers: bool = True) -> list[dict]:
    """Rows of `query` over events a second apart, as texts, newest first."""
    program = compile_query(query, options)
    group = LogGroup(GROUP, ACCOUNT, REGION)
    group.append(
        [
            Event(T0 + number * 1000, 0, message if isinstance(message, str) else json.dumps(message))
            for number, message in enumerate(messages)
        ]
    )
    rows = group.rows(reversed(group.events), program.needs | {"@timestamp"}, discovers)
    return [
        {name: shown for name in program.columns if (shown := text(row[name])) is not None}
        for row in program.run(rows).rows
    ]


def value(expression: str, message: dict | str | None = None) -> str | None:
    return run(f"fields {expression} as answer", message or {}).pop().get("answer")


class Evaluation(unittest.TestCase):
    def test_functions(self) -> None:
        message = {"s": " aXbX ", "n": -3.5, "t": "text", "e": "", "l": ["p", {"q": 5}]}
        for expression, expected in {
            "toMillis(@timestamp)": str(T0),
            "fromMillis(1780308000123)": "2026-06-01 10:00:00.123",
            "datefloor(@timestamp, 1h)": "2026-06-01 10:00:00.000",
            "dateceil(fromMillis(1780308000123), 5m)": "2026-06-01 10:05:00.000",
            "ispresent(s)": "1",
            "ispresent(e)": "1",
            "ispresent(none)": "0",
            "coalesce(none, t)": "text",
            "isempty(e)": "1",
            "isempty(none)": "1",
            "isblank(t)": "0",
            "strlen(t)": "4",
            "concat(t, '-', n)": "text--3.5",
            "toupper(t)": "TEXT",
            "tolower('ABC')": "abc",
            "trim(s)": "aXbX",
            "ltrim('xyZxyfooxyZ', 'xyZ')": "fooxyZ",
            "rtrim('xyZfooxyxyZ', 'xyZ')": "xyZfoo",
            "substr('xyZfooxyZ', 3, 3)": "foo",
            "substr(t, 2)": "xt",
            "replace(s, 'X', '.')": " a.b. ",
            "strcontains(t, 'ex')": "1",
            "abs(n)": "3.5",
            "ceil(n)": "-3",
            "floor(n)": "-4",
            "greatest(1, 5, 3)": "5",
            "least(1, 5, 3)": "1",
            "l.0": "p",
            "l.1.q": "5",
            "if(n < 0, 'minus', 'plus')": "minus",
            "2 ^ 3 + 10 % 3 * 2": "10",
            "(1 + 2) * 3 - 8 / 2": "5",
            "1 / 0": None,
            "t + 1": None,
            "toMillis(t)": None,
            "`t`": "text",
        }.items():
            with self.subTest(expression):
                self.assertEqual(value(expression, message), expected)

    def test_filters(self) -> None:
        message = {"v": "TLSv1.2", "n": 12, "s": "12", "b": True, "o": {"x": 1}}
        for condition, expected in {
            'v = "TLSv1.2"': True,
            "v = 'TLSv1'": False,
            'v != "TLSv1"': True,
            'none != "x"': False,
            "none = ''": False,
            "n = 12": True,
            's = 12 and n = "12"': True,
            "n >= 12 and n <= 12 and not n < 12": True,
            "n > 12 or n < 12": False,
            'v in ["TLSv1", "TLSv1.2"]': True,
            'v in ["TLSv1"]': False,
            'v not in ["TLSv1"]': True,
            "n in [11, 12]": True,
            'v like "v1."': True,
            "v like /^TLS/": True,
            "v not like /SSL/": True,
            "v =~ /1\\.[23]$/": True,
            "v like /tls/": False,
            "(not ispresent(none) or none = '') and n = 12": True,
            "ispresent(o.x) and not ispresent(o)": True,
            "b = 1": True,
            "strcontains(v, 'TLS')": True,
        }.items():
            with self.subTest(condition):
                self.assertEqual(len(run(f"filter {condition}", message)), int(expected))

    def test_not_equal_where_absent(self) -> None:
        options = Options(not_equal_absent=True)
        self.assertEqual(len(run('filter none != "x"', {}, options=options)), 1)

    def test_comments_case_and_backticks(self) -> None:
        query = "# all\nFIELDS strlen(`user-agent`) AS n # here too\n| FILTER n > 1 # not 5\n| STATS SUM(n) AS total"
        self.assertEqual(
            run(query, {"user-agent": "abc"}, {"user-agent": "abcd"}, {"user-agent": "a"}), [{"total": "7"}]
        )

    def test_map_and_list(self) -> None:
        message = {"tlsDetails": {"tlsVersion": "TLSv1.3"}, "users": [{"a": "x"}, {"a": "y", "b.c": 1}]}
        query = (
            "fields jsonParse(@message) as r | filter r.users[1].a = 'y' and r.users[1].`b.c` = 1 "
            "| stats count(*) as n by r.tlsDetails.tlsVersion, r.none.x, r.users"
        )
        self.assertEqual(run(query, message), [{"r.tlsDetails.tlsVersion": "TLSv1.3", "n": "1"}])
        query = "fields jsonParse(@message) as r | fields jsonStringify(r.users[0]) as s, toupper(r.users) as t"
        self.assertEqual(run(query, message), [{"s": '{"a":"x"}'}])
        self.assertEqual(run("fields jsonParse(@message) as r | filter ispresent(r) or r = ''", "no json"), [])

    def test_alias_of_a_raw_field(self) -> None:
        """What trade-tariff-backend pull 3465 ended with, and says that AWS takes."""
        query = 'fields if(ispresent(k), k, "unknown") as k | stats count(*) as n by k'
        self.assertEqual(run(query, {}), [{"k": "unknown", "n": "1"}])

    def test_two_hundred_fields(self) -> None:
        message = {"before": {str(number): number for number in range(199)}, "last": "in", "past": "out"}
        self.assertEqual(run("display last, past", message), [{"last": "in"}])
        parsed = run("fields jsonParse(@message) as r | display r.last, r.past", message)
        self.assertEqual(parsed, [{"r.last": "in", "r.past": "out"}])

    def test_nothing_discovered(self) -> None:
        self.assertEqual(run("stats count(eventName) as n", record(), discovers=False), [{"n": "0"}])
        query = "fields jsonParse(@message) as r | stats count(r.eventName) as n"
        self.assertEqual(run(query, record(), discovers=False), [{"n": "1"}])

    def test_aggregates(self) -> None:
        messages = [{"n": number, "t": f"v{number}"} for number in (1, 2, 3, 10)] + [{"x": 1}]
        for expression, expected in {
            "count(*)": "5",
            "count()": "5",
            "count(n)": "4",
            "count_distinct(n)": "4",
            "sum(n)": "16",
            "min(n)": "1",
            "max(n)": "10",
            "avg(n)": "4",
            "pct(n, 50)": "2.5",
            "pct(n, 100)": "10",
            "latest(t)": "v10",
            "earliest(t)": "v1",
            "sortsFirst(t)": "v1",
            "sortsLast(t)": "v10",
            "sum(n) / count(*)": "3.2",
            "ceil(avg(n) + 0.5)": "5",
            "max(@timestamp)": "2026-06-01 10:00:04.000",
            "sum(none)": None,
        }.items():
            with self.subTest(expression):
                self.assertEqual(run(f"stats {expression} as answer", *messages)[0].get("answer"), expected)
        self.assertAlmostEqual(float(run("stats stddev(n) as s", *messages)[0]["s"]), 3.5355339, 6)

    def test_bin(self) -> None:
        messages = [{} for _ in range(130)]
        self.assertEqual(len(run("stats count(*) by bin(5m)", *messages)), 1)
        self.assertEqual(len(run("stats count(*) by bin(300s)", *messages)), 3, "300s is capped at 60 s")
        self.assertEqual(len(run("stats count(*) by bin(1000000ms)", *messages)), 130)
        row = run("stats count(*) by bin(5m)", {})[0]
        self.assertEqual(row, {"bin(5m)": "2026-06-01 10:00:00.000", "count(*)": "1"})
        self.assertEqual(list(run("stats count(*) as n by bin(1h) as hour", {})[0]), ["hour", "n"])

    def test_order_of_sort(self) -> None:
        """The example of CWL_QuerySyntax-Sort, from another order."""
        example = [
            "!:",
            "#",
            "*%04",
            "0#",
            "5A",
            "111A",
            "2345_",
            "@",
            "@_",
            "A",
            "A9876fghj",
            "a12345hfh",
            "0",
            "01",
            "1",
            "2",
            "3",
        ]
        self.assertEqual(sorted(reversed(example[:-4] + ["1", "2", "3"]), key=order), example[:-4] + ["1", "2", "3"])
        rows = run("sort n desc, s | limit 3", {"n": 1, "s": "b"}, {"n": 1, "s": "a"}, {"n": 9}, {"n": 0})
        self.assertEqual(len(rows), 3)
        rows = run("stats count(*) as calls by k | sort calls desc | limit 1", {"k": "a"}, {"k": "b"}, {"k": "b"})
        self.assertEqual(rows, [{"k": "b", "calls": "2"}])
        self.assertEqual(
            run("stats count(*) by k | sort count(*) asc", {"k": "a"}, {"k": "b"}, {"k": "b"})[0]["k"], "a"
        )

    def test_two_stats(self) -> None:
        query = (
            "stats count(*) as n, max(@timestamp) as @t by k, bin(1m) | filter n > 1 "
            "| stats sum(n) as total, count(*) as groups by dateceil(@t, 10m) as slot | sort slot"
        )
        rows = run(query, {"k": "a"}, {"k": "a"}, {"k": "b"})
        self.assertEqual(rows, [{"slot": "2026-06-01 10:10:00.000", "total": "2", "groups": "1"}])

    def test_dedup_and_display(self) -> None:
        messages = [{"k": "a", "n": 1}, {"k": "a", "n": 2}, {"n": 3}, {"n": 4}]
        rows = run("fields n, k | dedup k | limit 10", *messages)
        self.assertEqual([row["n"] for row in rows], ["4", "3", "2"])
        self.assertEqual(run("fields n | display k | limit 1", {"k": "a"}), [{"k": "a"}])
        self.assertEqual(list(run("filter ispresent(n)", *messages)[0]), ["@timestamp", "@message"])

    def test_texts_of_numbers(self) -> None:
        scientific = Style(scientific=True)
        for number, plain, science in (
            (12, "12", "1.2E1"),
            (0, "0", "0.0E0"),
            (1.5, "1.5", "1.5E0"),
            (10**7, "10000000", "1.0E7"),
        ):
            self.assertEqual(text(number), plain)
            self.assertEqual(text(number, scientific), science)
            self.assertEqual(float(text(number, scientific)), number)


class Refusals(unittest.TestCase):
    """Everything that must not be answered with numbers."""

    QUERIES = {
        "empty": "",
        "unknown command": "select a",
        "aggregate as command": "fields @timestamp | count()",
        "unknown function": "fields frobnicate(a)",
        "unknown aggregate": "stats median(a)",
        "too many arguments": "fields strlen(a, b)",
        "too few arguments": "filter strcontains(a)",
        "aggregate arity": "stats sum(a, b)",
        "aggregate outside stats": "filter count(*) > 1",
        "star outside count": "stats sum(*)",
        "unbalanced parenthesis": "filter (a = 1",
        "unbalanced bracket": 'filter a in ["x"',
        "closing too much": "filter a = 1)",
        "in without brackets": 'filter a in "x"',
        "empty list": "filter a in []",
        "field in a list": "filter a in [b]",
        "dangling pipe": "filter a = 1 |",
        "dangling and": "filter a = 1 and",
        "double equals": "filter a == 1",
        "SQL unequal": "filter a <> 1",
        "chained comparison": "filter a = 1 = 1",
        "text as condition": 'filter "x"',
        "not of a text": "filter not toupper(a)",
        "true": "filter a = true",
        "unterminated string": 'filter a = "x',
        "unknown escape": r'filter a = "x\d"',
        "unterminated regex": "filter a like /x",
        "bad regex": "filter a like /(/",
        "dash in a name": "fields user-agent",
        "colon in a name": "fields aws:SourceIp",
        "dollar in a name": "fields a$b",
        "name that starts with a digit": "fields 9a",
        "number as alias": "fields a as 1",
        "missing alias": "fields a as",
        "dotted alias": "fields a as b.c",
        "alias of an earlier alias": "fields a as x | fields b as x",
        "alias of a projected field": "fields eventSource | stats count(*) as n by a as eventSource",
        "alias of a projected field in fields": "fields a | fields b as a",
        "alias of another output": "stats count(*) as a by a",
        "two equal aliases": "stats count(*) as n, sum(a) as n",
        "alias used in the command that makes it": "fields jsonParse(@message) as r, ispresent(r.x) as y",
        "alias of a field in use": "stats max(a) as a",
        "field after stats": "stats count(*) as n by a | filter b = 1",
        "sort by what stats lost": "stats count(*) by a | sort @timestamp",
        "alias lost by stats": "fields a as x | stats count(*) as n by b | sort x",
        "path into a plain alias": "fields a as x | filter x.y = 1",
        "message in second stats": "stats sum(a) as s by b | stats max(strlen(@message))",
        "bin in second stats": "stats sum(a) as s by b | stats avg(s) by bin(5m)",
        "latest in second stats": "stats sum(a) as s by b | stats latest(s)",
        "third stats": "stats count(*) as a by x, y | stats sum(a) as b by x | stats sum(b)",
        "sort before second stats": "stats count(*) as a by x | sort a | stats sum(a)",
        "limit before second stats": "stats count(*) as a by x | limit 5 | stats sum(a)",
        "sort before both stats": "sort a | stats count(*) as n by x | stats sum(n)",
        "field without aggregate": "stats a by b",
        "aggregate mixed with field": "stats sum(a) + b",
        "aggregate in aggregate": "stats sum(count(a))",
        "group by an aggregate": "stats count(*) by sum(a)",
        "group by a literal": "stats count(*) by 5",
        "group by a map": "fields jsonParse(@message) as r | stats count(*) by r",
        "sort by a map": "fields jsonParse(@message) as r | sort r",
        "dedup by a map": "fields jsonParse(@message) as r | dedup r",
        "sort after dedup": "dedup a | sort a",
        "filter after dedup": "dedup a | filter a = 1",
        "period without unit": "stats count(*) by bin(5)",
        "unknown unit": "stats count(*) by bin(5parsec)",
        "months": "stats count(*) by bin(1mo)",
        "zero period": "stats count(*) by bin(0m)",
        "period elsewhere": "filter a > 5m",
        "bin with a field": "stats count(*) by bin(@timestamp, 5m)",
        "toMillis of a number": "fields toMillis(5)",
        "datefloor of a text": "fields datefloor('x', 5m)",
        "ispresent of a literal": "filter ispresent('a')",
        "brackets without jsonParse": "filter a[0] = 1",
        "pct without percent": "stats pct(a)",
        "pct beyond": "stats pct(a, 101)",
        "limit of nothing": "limit",
        "limit zero": "limit 0",
        "limit as text": "limit '5'",
        "limit too high": "limit 100001",
        "display of an expression": "display strlen(a)",
        "filterIndex": "filterIndex a = 1",
        "pattern": "pattern @message",
        "diff": "fields a | diff",
        "unmask": "unmask a",
        "parse": "parse @message '*' as x",
        "source": "source logGroups() | fields a",
        "too long": "fields a # " + "x" * 10_000,
        "SQL": "SELECT a FROM b",
    }

    def test_each(self) -> None:
        for name, query in self.QUERIES.items():
            with self.subTest(name), self.assertRaises(Refused):
                compile_query(query, Options())

    def test_where(self) -> None:
        with self.assertRaises(Refused) as caught:
            compile_query("fields a | fields frobnicate(b)", Options())
        self.assertEqual((caught.exception.start, caught.exception.end), (18, 30))

    def test_literal_in_coalesce(self) -> None:
        query = "fields coalesce(a, 'none') as x"
        self.assertEqual(run(query, {}), [{"x": "none"}])
        with self.assertRaises(Refused):
            compile_query(query, Options(literal_in_coalesce=False))

    def test_ten_thousand_characters(self) -> None:
        query = "fields a # "
        compile_query(query + "x" * (10_000 - len(query)), Options())


if __name__ == "__main__":
    unittest.main()
