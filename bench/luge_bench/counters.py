"""What processes cost while something is measured: processor time, wake-ups, and system calls.

System calls are counted by the kernel's own tracepoint through perf where that is installed and allowed; else only those that
move data are known (from /proc/PID/io), and the report says which of the two it was.
"""
import os
import shutil
import signal
import subprocess

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


def resident_bytes(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as f:
            total += next(int(l.split()[1]) for l in f if l.startswith("VmRSS")) << 10
    return total
