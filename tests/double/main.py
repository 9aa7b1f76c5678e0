"""Entry point of the double of AWS: doubles on loopback, as many as asked for, each in a process of its own.

    python tests/double/main.py

A line `start` on stdin forks one (its imports are paid for once), a line `end ENDPOINT` ends it. Each is answered by one
line of JSON on stdout, {"endpoint": "http://127.0.0.1:PORT"}; nothing else is ever written there. The end of stdin is
the end of all doubles, so they die with the test that started them.
"""

import gc
import json
import os
import sys
import threading

import wire
import world


def main() -> None:
    running: dict[str, tuple[int, int]] = {}  # endpoint: process, and the end of the pipe that keeps it alive
    gc.freeze()  # what is imported stays in memory once
    for line in sys.stdin:
        match line.split():
            case ["start"]:
                endpoint = start(running)
            case ["end", endpoint]:
                process, alive = running.pop(endpoint)
                os.close(alive)
                os.waitpid(process, 0)
            case _:
                sys.exit(f"neither `start` nor `end ENDPOINT`: {line!r}")
        print(json.dumps({"endpoint": endpoint}), flush=True)


def start(running: dict[str, tuple[int, int]]) -> str:
    """A new process that serves until its pipe is closed."""
    server = wire.serve(world.World(), 0)
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    until, alive = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(sys.stdin.fileno())
        for other in (alive, *(end for _, end in running.values())):
            os.close(other)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.read(until, 1)
        os._exit(0)  # requests may still be hanging, as told to
    os.close(until)
    server.server_close()
    running[endpoint] = (process, alive)
    return endpoint


if __name__ == "__main__":
    main()
