"""AWS's documented answers (fixtures/, values made here) against what the double puts on the wire.

Shapes are those of the pages API_StartQuery, API_GetQueryResults and API_StopQuery of the CloudWatch Logs API
reference, of BC-logs for members younger than those pages, and of BC-logs QueryCompileError for the malformed
query. The error bodies are awsJson1.1's.
"""

import json
import unittest
from pathlib import Path

from harness import GROUP, T0, DoubleTest, record

FIXTURES = Path(__file__).resolve().parent / "fixtures"
S0 = T0 // 1000
BY_SOURCE = "stats count(*) as calls by eventSource"


def shape(value: object) -> object:
    """Members and types; the members of unordered results, and numbers of either JSON spelling, are alike."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        shapes = [shape(member) for member in value]
        assert all(other == shapes[0] for other in shapes[1:]) or not shapes
        return shapes[:1]
    return "number" if type(value) in (int, float) else type(value).__name__


class Fixtures(DoubleTest):
    def setUp(self) -> None:
        super().setUp()
        self.put((T0, record()), (T0 + 1, record(eventSource="kms.amazonaws.com")))
        self.bodies: list[bytes] = []
        self.logs.meta.events.register(
            "after-call.logs", lambda http_response, **_: self.bodies.append(http_response.content)
        )

    def same(self, name: str) -> dict:
        """The last body has the shape of the fixture."""
        body = json.loads(self.bodies[-1])
        self.assertEqual(shape(body), shape(json.loads((FIXTURES / f"{name}.json").read_text())))
        return body

    def test_start_and_stop(self) -> None:
        query = self.start(BY_SOURCE)
        self.same("start_query")
        self.logs.stop_query(queryId=query)
        self.same("stop_query")

    def test_results(self) -> None:
        self.ended(self.start("fields @timestamp, eventName"))
        body = self.same("get_query_results")
        self.assertTrue(all(type(value) is float for value in body["statistics"].values()))

    def test_results_with_three_statistics(self) -> None:
        self.switch(statistics="three")
        self.ended(self.start(BY_SOURCE))
        body = json.loads(self.bodies[-1])
        del body["queryLanguage"]  # younger than the page's sample
        self.bodies.append(json.dumps(body).encode())
        self.same("get_query_results_three_statistics")

    def test_errors(self) -> None:
        self.refused("MalformedQueryException", self.start, "fields ^")
        self.same("malformed_query")
        self.refused("ResourceNotFoundException", self.start, BY_SOURCE, logGroupNames=["absent"])
        body = self.same("resource_not_found")
        self.assertEqual(body["__type"], "ResourceNotFoundException")
        self.refused("InvalidParameterException", self.start, BY_SOURCE, S0, S0 - 1)
        self.same("invalid_parameter")
        self.switch(concurrent_queries=0)
        self.refused("LimitExceededException", self.start, BY_SOURCE)
        self.same("limit_exceeded")
        self.switch(starts_per_second=0)
        self.refused("ThrottlingException", self.start, BY_SOURCE)
        body = self.same("throttling")
        self.assertEqual(body["message"], "Rate exceeded")

    def test_members_are_those_of_the_model(self) -> None:
        """Nothing that the SDK's model of the service does not know."""
        model = self.logs.meta.service_model
        self.ended(self.start(BY_SOURCE))
        output = model.operation_model("GetQueryResults").output_shape.members
        body = json.loads(self.bodies[-1])
        self.assertLessEqual(set(body), set(output))
        self.assertLessEqual(set(body["statistics"]), set(output["statistics"].members))
        self.logs.describe_queries()
        info = model.shape_for("QueryInfo").members
        self.assertLessEqual(set(json.loads(self.bodies[-1])["queries"][0]), set(info))
        self.logs.describe_log_groups(logGroupNamePrefix=GROUP)
        group = model.shape_for("LogGroup").members
        self.assertLessEqual(set(json.loads(self.bodies[-1])["logGroups"][0]), set(group))


if __name__ == "__main__":
    unittest.main()
