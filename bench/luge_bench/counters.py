"""What processes cost while something is measured: processor time, wake-ups, system calls, and bytes that those copy.

System calls are counted by the kernel's own tracepoint through perf where that is installed and allowed; else only those that
move data are known (from /proc/PID/io), and the report says which of the two it was.
"""
import os
import re
import shutil
import signal
import subprocess
import tempfile

TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """What processes have used so far."""

    def __init__(self, pids):
        self.cpu = self.data_calls = self.wakes = 0
        for pid in pids:
            try:
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                self.cpu += (int(fields[11]) + int(fields[12])) / TICKS
                with open(f"/proc/{pid}/io") as f:
                    io = dict(line.split(": ") for line in f.read().splitlines())
                self.data_calls += int(io["syscr"]) + int(io["syscw"])
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/status") as f:
                        self.wakes += next(int(l.split()[1]) for l in f if l.startswith("voluntary_ctxt_switches"))
            except (OSError, StopIteration):
                continue  # it has ended meanwhile


class CallCounter:
    """perf stat over `pids` from the start to stop()."""

    def __init__(self, pids):
        self.process = None
        if not pids or not self.available():
            return
        self.process = subprocess.Popen(["perf", "stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids))],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    known = None

    @classmethod
    def available(cls):
        if cls.known is None:
            cls.known = bool(shutil.which("perf")) and subprocess.run(
                ["perf", "stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "true"], capture_output=True).returncode == 0
        return cls.known

    def stop(self):
        """System calls, or None where they cannot be counted."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGINT)
        _, text = self.process.communicate(timeout=30)
        for line in text.splitlines():
            fields = line.split(";")
            if len(fields) > 2 and "sys_enter" in fields[2] and fields[0].isdigit():
                return int(fields[0])
        return None


# Calls that copy what they move between a process and the kernel. File I/O is direct (O_DIRECT) and copies nothing.
COPYING = ("sendmsg", "sendto", "recvfrom", "recvmsg", "read", "write", "readv", "writev")
RETURNED = re.compile(r"syscalls:sys_exit_\w+: (?:0x([0-9a-f]+)|(\d+))")


def copied_bytes(pids, seconds):
    """Bytes that the processes' system calls have copied in `seconds`, or None where that cannot be seen."""
    if not pids or not CallCounter.available():
        return None
    with tempfile.NamedTemporaryFile(prefix="luge-perf-") as f:
        events = ",".join(f"syscalls:sys_exit_{c}" for c in COPYING)
        done = subprocess.run(["perf", "record", "-q", "-m", "8M", "-o", f.name, "-e", events, "-p", ",".join(map(str, pids)), "--", "sleep", str(seconds)], capture_output=True)
        if done.returncode != 0:
            return None
        script = subprocess.run(["perf", "script", "-i", f.name, "-F", "event,trace"], capture_output=True, text=True)
    total = 0
    for digits16, digits10 in RETURNED.findall(script.stdout):
        value = int(digits16, 16) if digits16 else int(digits10)
        if value < 1 << 40:  # else an error
            total += value
    return total


def resident_bytes(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as f:
            total += next(int(l.split()[1]) for l in f if l.startswith("VmRSS")) << 10
    return total
