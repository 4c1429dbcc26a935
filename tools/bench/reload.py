#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How long a reload takes: from `ktlsgatectl reload` until new connections see it.

As many vservers as told, each with an address and a service of its own. Prints milliseconds, the
median of all repeats with the lowest and the highest. Build first: make all.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

# pylint: disable=wrong-import-position
from harness import steering
from harness.daemon import Ktlsgated
from harness.pki import Pki


def configuration(pki, n):
    """Vservers v0 to v<n-1>, each at an address of the loopback's."""
    conf = steering.vservers(
        pki, {f"v{i}": f"127.0.{1 + i // 250}.{1 + i % 250}:18443" for i in range(n)}, 9443)
    for i in range(n):
        conf[f"vserver.v{i}.service"] = f"s{i}"
        conf.update({f"service.s{i}.{key}": conf[f"service.app1.{key}"]
                     for key in ("address", "server_name", "profile")})
    return conf


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--vservers", type=int, default=1000)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--bpf", default="/sys/fs/bpf/ktlsgate-bench-reload", help="bpf.dir; or off")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        (place / "pki").mkdir()
        pki = Pki(place / "pki")
        g = Ktlsgated(place / "gate", pki, "user", configuration(pki, args.vservers),
                      **{"bpf.dir": args.bpf})
        g.start()
        took = []
        for i in range(args.repeats):
            g.reconfigure(timeout__idle=f"{i + 1}m")
            begin = time.monotonic()
            g.ctl("reload")
            took.append((time.monotonic() - begin) * 1000)
        g.stop()
    print(f"{args.vservers} vservers: a reload takes {statistics.median(took):.0f} ms "
          f"({min(took):.0f} to {max(took):.0f}, {args.repeats} times)")


if __name__ == "__main__":
    main()
