"""Every switch of the double, both ways: the answers of AWS that no source could confirm."""

import unittest

from harness import ACCOUNT, REGION, T0, DoubleTest, record

S0 = T0 // 1000
COUNT = "stats count(*) as n"


class Switches(DoubleTest):
    def both(self, name: str, query: str, cases: dict, **more) -> None:
        for setting, expected in cases.items():
            with self.subTest(f"{name}={setting}"):
                self.switch(**{name: setting})
                self.assertEqual(self.rows(query, **more), expected)

    def test_missing_key(self) -> None:
        self.put((T0, {}))
        absent, empty = [{"n": "1"}], [{"k": "", "n": "1"}]
        self.both("missing_key", "stats count(*) as n, sum(x) as s by k", {"absent": absent, "empty": empty})

    def test_end_inclusive(self) -> None:
        self.put((T0, {}), (T0 + 1000, {}), (T0 + 1999, {}))
        self.both("end_inclusive", COUNT, {"second": [{"n": "3"}], "millisecond": [{"n": "2"}]}, end=S0 + 1)

    def test_ptr_in_rows(self) -> None:
        self.put((T0, {}))
        for setting in (True, False):
            self.switch(ptr_in_rows=setting)
            self.assertEqual("@ptr" in self.rows(COUNT)[0], setting)
            self.assertIn("@ptr", self.rows("fields @timestamp")[0])

    def test_number_format(self) -> None:
        self.put(*((T0 + number, {}) for number in range(12)))
        self.both("number_format", COUNT, {"plain": [{"n": "12"}], "scientific": [{"n": "1.2E1"}]})

    def test_statistics(self) -> None:
        three = {"recordsMatched", "recordsScanned", "bytesScanned"}
        self.assertLess(three, set(self.ended(self.start(COUNT))["statistics"]))
        self.switch(statistics="three")
        self.assertEqual(set(self.ended(self.start(COUNT))["statistics"]), three)

    def test_boolean(self) -> None:
        self.put((T0, {}))
        query = "fields ispresent(x) as b | stats count(*) as n by b"
        self.both("boolean", query, {"1/0": [{"b": "0", "n": "1"}], "true/false": [{"b": "false", "n": "1"}]})

    def test_not_equal_absent(self) -> None:
        self.put((T0, {}))
        self.both("not_equal_absent", f'filter x != "a" | {COUNT}', {True: [{"n": "1"}], False: []})

    def test_ia_discovers_fields(self) -> None:
        self.control("groups", [{"name": "ia", "account": ACCOUNT, "region": REGION, "class": "INFREQUENT_ACCESS"}])
        self.put((T0, {"k": "v"}), group="ia")
        query = "stats count(k) as n"
        self.both("ia_discovers_fields", query, {True: [{"n": "1"}], False: [{"n": "0"}]}, logGroupNames=["ia"])
        query = "fields jsonParse(@message) as r | stats count(r.k) as n"
        self.both("ia_discovers_fields", query, {False: [{"n": "1"}]}, logGroupNames=["ia"])

    def test_literal_in_coalesce(self) -> None:
        query = 'fields coalesce(x, "none") as y | display y'
        self.start(query)
        self.switch(literal_in_coalesce="refused")
        self.refused("MalformedQueryException", self.start, query)

    def test_caps(self) -> None:
        self.put(*((T0 + number, {"k": str(number)}) for number in range(5)))
        for name in ("row_cap", "stats_group_cap"):
            for cap, rows in ((None, 5), (2, 2)):
                self.switch(**{name: cap})
                self.assertEqual(len(self.rows("stats count(*) as n by k")), rows)
            self.switch(**{name: None})

    def test_field_order(self) -> None:
        self.put(*((T0 + number, record(eventName=f"E{number}")) for number in range(9)))
        query = "stats count(*) as n, min(eventTime) as t by eventName, eventSource"
        written = ["eventName", "eventSource", "n", "t"]
        for setting, same in (("as_written", True), ("shuffled", False)):
            self.switch(field_order=setting)
            orders = [[cell["field"] for cell in row] for row in self.ended(self.start(query))["results"]]
            self.assertEqual(all(order == written for order in orders), same)
            self.assertTrue(all(sorted(order) == written for order in orders))


if __name__ == "__main__":
    unittest.main()
