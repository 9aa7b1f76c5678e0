"""Where kubectl and Helm come from on another architecture than the pinned ones are for."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import kubetools


class AnotherArchitecture(unittest.TestCase):
    def setUp(self) -> None:
        self.tools, self.path = (Path(self.enterContext(tempfile.TemporaryDirectory())) for _ in range(2))
        self.enterContext(mock.patch.object(kubetools, "TOOLS", self.tools))
        self.enterContext(mock.patch.object(kubetools.platform, "machine", return_value="aarch64"))
        self.enterContext(mock.patch.dict("os.environ", PATH=str(self.path)))

    def install(self, tool: str) -> None:
        (self.path / tool).write_text(f"#!/bin/sh\necho {tool} of this machine\n")
        (self.path / tool).chmod(0o755)

    def test_has_those_of_the_machine(self) -> None:
        self.install("kubectl")
        self.install("helm")
        self.assertEqual(kubetools.run("helm"), "helm of this machine\n")
        self.assertEqual(kubetools.run("kubectl"), "kubectl of this machine\n")

    def test_is_told_what_is_missing(self) -> None:
        self.install("kubectl")
        for _ in range(2):
            with self.assertRaisesRegex(RuntimeError, r"for x86_64 only, this is aarch64: install helm"):
                kubetools.folder()


if __name__ == "__main__":
    unittest.main()
