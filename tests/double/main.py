"""Entry point of the double of AWS: binds loopback, says where, and serves until its stdin ends.

    python tests/double/main.py [--port 0]

One line of JSON on stdout, {"endpoint": "http://127.0.0.1:PORT"}; nothing else is ever written there. The end
of stdin is the end of the double, so it dies with the test that started it.
"""

import argparse
import json
import os
import sys
import threading

import wire
import world


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=0)
    server = wire.serve(world.World(), arguments.parse_args().port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"endpoint": f"http://127.0.0.1:{server.server_address[1]}"}), flush=True)
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)  # requests may still be hanging, as told to


if __name__ == "__main__":
    main()
