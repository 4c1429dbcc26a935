# SPDX-License-Identifier: Apache-2.0
"""What a stretch of time has cost: the processes that are named, the whole machine, and who else."""

import contextlib
import os
import pathlib
import time

HZ = os.sysconf("SC_CLK_TCK")
CPUS = os.cpu_count()
# A thread that has ended is missing in the exact figures of the living, not in the process's.
TICKS_OFF = 3


class Snapshot:
    """groups: {name: [pid, ...]}; children are counted with them, but for those of this process."""

    def __init__(self, groups):
        self.at = time.monotonic_ns()
        self.idle, self.steal, self.softirq = machine()
        self.cpu = {name: sum(map(cpu_of, family(pids))) for name, pids in groups.items()}


def machine():
    """Nanoseconds since boot: idle, stolen by the hypervisor, in interrupts; of all CPUs."""
    line = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ns = [int(ticks) * 1_000_000_000 // HZ for ticks in line]
    return ns[3] + ns[4], ns[7], ns[5] + ns[6]


def family(pids):
    """They and all below them."""
    found = list(pids)
    for pid in found:
        if pid == os.getpid():
            continue
        for task in tasks(pid):
            with contextlib.suppress(OSError):
                children = pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text()
                found += map(int, children.split())
    return found


def tasks(pid):
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/task")
    return []


def pin(pids, cpu):
    """All their threads, and those they start, to this CPU."""
    for pid in family(pids):
        for task in tasks(pid):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task), {cpu})


def cpu_of(pid):
    """Nanoseconds of all its threads, those of io-wq too."""
    living = 0
    for task in tasks(pid):
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
            living += int(text.split()[0])
    with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        all_ever = (int(fields[11]) + int(fields[12])) * 1_000_000_000 // HZ
        if all_ever > living + TICKS_OFF * 1_000_000_000 // HZ:
            return all_ever
    return living


def between(before, after):
    """
    Seconds: "wall"; "busy", of the whole machine, interrupts too; "processes", of each group;
    "foreign": busy with what is neither ours nor an interrupt, or not at our disposal.
    """
    wall = after.at - before.at
    steal = after.steal - before.steal
    busy = CPUS * wall - (after.idle - before.idle) - steal
    processes = {name: after.cpu[name] - before.cpu[name] for name in after.cpu}
    foreign = busy - sum(processes.values()) - (after.softirq - before.softirq) + steal
    seconds = {"wall": wall, "busy": busy, "foreign": max(0, foreign)}
    return {**{name: ns / 1e9 for name, ns in seconds.items()},
            "processes": {name: ns / 1e9 for name, ns in processes.items()}}


# ---- memory ----

def pss(pids):
    """Bytes of memory, shared pages by their share, of these and all below them."""
    total = 0
    for pid in family(pids):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def memory():
    """Bytes: what the machine has in use, and of that what is the kernel's."""
    found = {}
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        found[name] = int(value.split()[0]) * 1024
    return {"used": found["MemTotal"] - found["MemAvailable"], "slab": found["Slab"]}
