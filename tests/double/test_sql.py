"""Trino's meaning of a statement, where DuckDB alone would mean something else."""

import json
import unittest

import duckdb

import sql
import trino_values
from harness import T0, record
from sql import SqlError
from sql_bytes import scanned
from trail_harness import STORE
from trail_tables import TrailData

NOW = T0 + 3_600_000


class Statements(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.data = TrailData()
        cls.data.add_store({"id": STORE, "account": "1", "region": "r"})
        cls.store = cls.data.stores[STORE]
        made = [
            record(eventID="a", userIdentity={"type": "IAMUser", "arn": "arn:aws:iam::1:user/u"}),
            record(
                eventID="b", eventName="PutObject", eventTime="2026-06-01T10:09:59Z", tlsDetails=None, readOnly=False
            ),
            record(eventID=None, eventName=None, awsRegion=None, tlsDetails={"keyExchange": "x25519"}),
            record(eventID="a", eventTime="2026-06-02T00:00:00Z", tlsDetails={"tlsVersion": "TLSv1"}),
        ]
        cls.store.records.append([(T0, json.dumps(message)) for message in made])

    def run_statement(self, text: str, key_exchange: bool = True, time_as_text: bool = True) -> sql.Answer:
        text = sql.quoted_stores(text.replace("$EDS_ID", STORE))
        table = self.store.table(key_exchange)
        self.statement = sql.compile_statement(text, lambda _: table, NOW, time_as_text)
        self.everything = {self.store.records.name: "true"}
        return sql.run(self.data.base, sql.with_tables(self.statement.sql, self.statement, self.everything))

    def rows(self, text: str, **more) -> list[tuple]:
        return [tuple(map(trino_values.text, row)) for row in self.run_statement(text, **more).rows]

    def value(self, expression: str, **more) -> str | None:
        return self.rows(f"SELECT {expression} FROM $EDS_ID LIMIT 1", **more)[0][0]

    def refused(self, kind: str, message: str, text: str, **more) -> None:
        with self.assertRaises(SqlError) as caught:
            self.run_statement(text, **more)
        self.assertEqual(caught.exception.kind, kind)
        self.assertRegex(caught.exception.message, message)

    def test_division(self) -> None:
        for expression, expected in (
            ("7 / 2", "3"),
            ("-7 / 2", "-3"),
            ("7e0 / 2", "3.5"),
            ("CAST(1780308299 AS bigint) / 300 * 300", "1780308000"),
            ("CAST(9007199254740993 AS bigint) / 1", "9007199254740993"),  # more than a double can hold
            ("CAST(to_unixtime(timestamp '2026-06-01 10:04:59') AS bigint) / 300 * 300", "1780308000"),
            ("CAST(7 AS double) / 2", "3.5"),
            ("length(eventName) / 2", "4"),
        ):
            with self.subTest(expression):
                self.assertEqual(self.value(expression), expected)
        self.assertEqual(self.rows("SELECT count(*) / 3, sum(length(eventName)) / count(*) FROM $EDS_ID"), [("1", "6")])
        self.refused("DIVISION_BY_ZERO", "Division by zero", "SELECT count(*) / 0 FROM $EDS_ID")

    def test_functions(self) -> None:
        for expression, expected in (
            ("to_unixtime(timestamp '2026-06-01 10:00:00')", "1.780308E9"),
            ("to_unixtime(from_iso8601_timestamp('2026-06-01T10:00:00Z'))", "1.780308E9"),
            ("date_diff('hour', timestamp '2026-06-01 09:30:00', timestamp '2026-06-01 10:00:00')", "0"),
            ("date_trunc('hour', timestamp '2026-06-01 10:30:00')", "2026-06-01 10:00:00.000"),
            ("from_iso8601_timestamp('2026-06-01T10:00:00Z')", "2026-06-01 10:00:00.000 UTC"),
            ("now()", "2026-06-01 11:00:00.000 UTC"),
            ("current_date", "2026-06-01"),
            ("json_extract_scalar('{\"a\": 1}', '$.a')", "1"),
            ("json_extract_scalar('{\"a\": {}}', '$.a')", None),  # of scalars only
            ("json_extract_scalar('no json', '$.a')", None),
            ("json_extract_scalar(eventJson, '$.tlsDetails.tlsVersion')", "TLSv1.3"),
            ("coalesce(NULL, 'x')", "x"),
            ("CAST(NULL AS varchar) || 'x'", None),
            ("NULL = NULL", None),
            ("CAST('12' AS bigint) + 1", "13"),
            ("TRY_CAST('x' AS bigint)", None),
            ("if(true, 'a', 'b')", "a"),
            ("readOnly", "true"),
            ("1 = 1", "true"),
            ("tlsDetails", "{tlsversion=TLSv1.3, ciphersuite=TLS_AES_128_GCM_SHA256, clientprovidedhostheader=null}"),
        ):
            with self.subTest(expression):
                self.assertEqual(self.value(expression, key_exchange=False), expected)

    def test_aggregates(self) -> None:
        self.assertEqual(
            self.rows(
                "SELECT count(DISTINCT eventID) + count_if(eventID IS NULL), count(*), count(eventID) FROM $EDS_ID"
            ),
            [("3", "4", "3")],
        )
        # max_by gives the value at the greatest, even where it is NULL.
        self.assertEqual(self.rows("SELECT max_by(tlsDetails.cipherSuite, eventTime) FROM $EDS_ID"), [(None,)])
        self.assertEqual(self.rows("SELECT max(eventTime) FROM $EDS_ID WHERE false"), [(None,)])

    def test_structs_that_are_null(self) -> None:
        counted = "SELECT count(*) FROM $EDS_ID WHERE "
        self.assertEqual(self.rows(counted + "tlsDetails IS NULL"), [("1",)])
        self.assertEqual(self.rows(counted + "tlsDetails.tlsVersion IS NULL"), [("2",)])
        self.assertEqual(self.rows(counted + "userIdentity.sessionContext.sessionIssuer.arn IS NULL"), [("4",)])
        self.assertEqual(self.rows(counted + "NOT tlsDetails.tlsVersion = 'TLSv1'"), [("1",)])

    def test_grouping_by_number(self) -> None:
        """Also where the grouped thing is a constant, as for a key exchange that the schema does not have."""
        rows = self.rows(
            "SELECT '' AS a, coalesce(eventName, '') AS b, count(*) AS n FROM $EDS_ID GROUP BY 1, 2 ORDER BY b"
        )
        self.assertEqual(rows, [("", "", "1"), ("", "GetObject", "2"), ("", "PutObject", "1")])

    def test_names(self) -> None:
        self.run_statement(
            "SELECT eventName, EVENTNAME AS Mixed, count(*), tlsDetails.tlsVersion, 1 FROM $EDS_ID GROUP BY 1, 2, 4"
        )
        self.assertEqual(self.statement.names, ["eventName", "Mixed", "_col2", "tlsVersion", "_col4"])
        self.run_statement("SELECT * FROM $EDS_ID")
        self.assertEqual(self.statement.names[:3], ["eventversion", "useridentity", "eventtime"])
        self.assertNotIn("$bytes", self.statement.names)

    def test_ids_bare_and_quoted(self) -> None:
        for name in (STORE, f'"{STORE}"', STORE.upper(), f"{STORE} AS t", f"{STORE} t WHERE t.eventID = 'b'"):
            self.assertTrue(self.rows(f"SELECT count(*) FROM {name}"), name)
        self.assertEqual(self.rows(f"SELECT count(*) FROM $EDS_ID WHERE eventID = '{STORE}'"), [("0",)])
        self.assertEqual(self.value(f"'of {STORE} itself'"), f"of {STORE} itself")
        joined = "SELECT count(*) FROM $EDS_ID a JOIN $EDS_ID b ON a.eventID = b.eventID"
        self.assertEqual(self.rows(joined), [("5",)])
        self.assertEqual(self.rows("WITH x AS (SELECT eventID AS i FROM $EDS_ID) SELECT count(i) FROM x"), [("3",)])

    def test_columns_that_are_none(self) -> None:
        for text, name in (
            ("SELECT frob FROM $EDS_ID", "frob"),
            ("SELECT tlsDetails.frob FROM $EDS_ID", "tlsdetails.frob"),
            ("SELECT userIdentity.sessionContext.frob FROM $EDS_ID", "useridentity.sessioncontext.frob"),
            ("SELECT eventName AS e FROM $EDS_ID WHERE e = 'x'", "e"),
            ("SELECT eventName AS e, count(*) FROM $EDS_ID GROUP BY e", "e"),
            ("SELECT eventName AS e, e || 'x' FROM $EDS_ID", "e"),
            ("SELECT eventName, count(*) AS n FROM $EDS_ID GROUP BY 1 HAVING n > 1", "n"),
            ('SELECT eventName FROM $EDS_ID WHERE eventName = "GetObject"', "getobject"),
        ):
            with self.subTest(text):
                self.refused("COLUMN_NOT_FOUND", rf"^line 1:\d+: Column '{name}' cannot be resolved$", text)
        self.refused(
            "COLUMN_NOT_FOUND",
            "^line 1:8: Column 'tlsdetails.keyexchange' cannot be resolved$",
            "SELECT tlsDetails.keyExchange FROM $EDS_ID",
            key_exchange=False,
        )

    def test_what_is_no_trino(self) -> None:
        for kind, text in (
            ("SYNTAX_ERROR", "SELEC 1"),
            ("SYNTAX_ERROR", "SELECT FROM $EDS_ID"),
            ("SYNTAX_ERROR", "SELECT eventName FROM $EDS_ID WHERE eventName = 'x"),
            ("SYNTAX_ERROR", "SELECT eventName::varchar FROM $EDS_ID"),  # PostgreSQL's, and DuckDB's
            ("SYNTAX_ERROR", "SELECT count(*) FROM $EDS_ID GROUP BY"),
            ("SYNTAX_ERROR", "SELECT 1; SELECT 2"),
            ("NOT_SUPPORTED", "DELETE FROM $EDS_ID"),
            ("NOT_SUPPORTED", "CREATE TABLE x AS SELECT 1"),
            ("FUNCTION_NOT_FOUND", "SELECT strlen(eventName) FROM $EDS_ID"),  # DuckDB's
            ("FUNCTION_NOT_FOUND", "SELECT epoch(eventTime) FROM $EDS_ID"),
            ("EXPRESSION_NOT_AGGREGATE", "SELECT eventName, count(*) FROM $EDS_ID"),
            ("TYPE_MISMATCH", "SELECT 1 FROM $EDS_ID WHERE recipientAccountId = 111122223333"),
            ("TYPE_MISMATCH", "SELECT 1 FROM $EDS_ID WHERE eventName IN ('a', 1)"),
            ("TYPE_MISMATCH", "SELECT coalesce(eventName, 0) FROM $EDS_ID"),
            ("TYPE_MISMATCH", "SELECT CASE WHEN true THEN 'a' ELSE 1 END FROM $EDS_ID"),
            ("INVALID_CAST_ARGUMENT", "SELECT CAST(eventName AS bigint) FROM $EDS_ID"),
        ):
            with self.subTest(text):
                self.refused(kind, ".", text)

    def test_time_and_text(self) -> None:
        """Lake documents comparing the two (lake-queries-cli); Trino refuses it."""
        text = "SELECT count(*) FROM $EDS_ID WHERE eventTime > '2026-06-01 10:00:00'"
        self.assertEqual(self.rows(text), [("2",)])
        self.refused("TYPE_MISMATCH", "timestamp > varchar", text, time_as_text=False)

    def test_place_of_an_error(self) -> None:
        self.refused("COLUMN_NOT_FOUND", "^line 2:3: Column 'frob'", "SELECT eventName,\n  frob\nFROM $EDS_ID")
        self.refused("SYNTAX_ERROR", "^line 1:44: ", "SELECT eventName FROM t WHERE a = 'a long' ;")

    def test_bytes_of_columns(self) -> None:
        def size(text: str, prunes: str = "calendarday") -> tuple[int, int]:
            self.run_statement(text)
            found = scanned(self.data.base, self.statement, self.everything, prunes)
            return found.events, found.bytes

        names = sum(map(len, ["GetObject", "PutObject", "", "GetObject"]))
        self.assertEqual(size("SELECT eventName FROM $EDS_ID"), (4, names))
        self.assertEqual(size("SELECT eventName, eventname AS again FROM $EDS_ID WHERE eventName = 'x'"), (4, names))
        self.assertEqual(size("SELECT count(*) FROM $EDS_ID"), (4, 0))
        self.assertEqual(size("SELECT tlsDetails.tlsVersion FROM $EDS_ID"), (4, len("TLSv1.3") + len("TLSv1")))
        self.assertEqual(size("SELECT eventJson FROM $EDS_ID"), (4, self.store.records.bytes))
        time = "SELECT count(*) FROM $EDS_ID WHERE eventTime"
        self.assertEqual(size(f"{time} >= timestamp '2026-06-01 10:05:00'"), (4, 4 * 19))
        self.assertEqual(size(f"{time} >= timestamp '2026-06-01 10:05:00'", "time"), (2, 2 * 19))
        self.assertEqual(size(f"{time} < timestamp '2026-06-02 00:00:00'"), (3, 3 * 19))
        self.assertEqual(size(f"{time} <= timestamp '2026-06-02 00:00:00'"), (4, 4 * 19))
        self.assertEqual(size(f"{time} > '2026-06-01 23:00:00' AND eventTime < '2026-06-01 23:30:00'"), (3, 3 * 19))
        self.assertEqual(
            size(f"{time} BETWEEN timestamp '2026-06-02 00:00:00' AND timestamp '2026-06-03 00:00:00'")[0], 1
        )
        self.assertEqual(size("SELECT 1 FROM $EDS_ID WHERE timestamp '2026-06-02 00:00:00' <= eventTime")[0], 1)
        self.assertEqual(size(f"{time} < timestamp '2026-06-02 00:00:00' OR eventName = 'x'")[0], 4)

    def test_texts_of_values(self) -> None:
        for value, expected in (
            (12345678.0, "1.2345678E7"),
            (0.5, "0.5"),
            (1e-4, "1.0E-4"),
            (100.0, "100.0"),
            (0.0, "0.0"),
            (float("nan"), "NaN"),
            ([1, None], "[1, null]"),
        ):
            self.assertEqual(trino_values.text(value), expected)
        types = duckdb.sql("SELECT 1::BIGINT, sum(1), [1], 1.5::DECIMAL(4, 2), {a: 1}, now()").description
        names = [trino_values.type_name(str(column[1])) for column in types]
        self.assertEqual(names, ["bigint", "bigint", "array", "decimal", "row", "timestamp with time zone"])


if __name__ == "__main__":
    unittest.main()
