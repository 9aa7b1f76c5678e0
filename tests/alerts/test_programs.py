"""What a test starts ends with it, also when the test is killed and can clean up nothing."""

import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from programs import DEADLINE

STARTS_A_SERVER = """
import pathlib, sys, time
from programs import Program, free_port
port = free_port()
server = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={sys.argv[1]}", str(port)]
print(Program(server, port, pathlib.Path(sys.argv[1], "log")).url, flush=True)
time.sleep(3600)
"""


class EachProgram(unittest.TestCase):
    def test_ends_with_a_test_that_is_killed(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "-").mkdir()
            pathlib.Path(folder, "-", "ready").touch()
            here = pathlib.Path(__file__).parent
            command = [sys.executable, "-c", STARTS_A_SERVER, folder]
            test = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True)
            self.addCleanup(test.stdout.close)
            self.addCleanup(test.wait)
            self.addCleanup(test.kill)
            url = test.stdout.readline().strip()
            self.assertTrue(answers(url), url)
            test.kill()
            until = time.monotonic() + DEADLINE
            while answers(url) and time.monotonic() < until:
                time.sleep(0.05)
            self.assertFalse(answers(url))


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/-/ready", timeout=5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    unittest.main()
