"""A network of this machine's own: one namespace a daemon, and between them a switch that is a thread of this process and
does what a test tells it: cuts (both ways or one), delays, loses, doubles and reorders frames. Needs root and /dev/net/tun,
and nothing of the kernel's traffic control.
"""
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
MTU = 9000


def unavailable():
    """None, or why there can be no such network here."""
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    name = f"lgp{os.getpid() % 100000}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return "no network namespaces"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return None


class Link:
    """What happens to frames from one port to another."""

    def __init__(self):
        self.cut, self.delay, self.jitter, self.loss, self.double = False, 0.0, 0.0, 0.0, 0.0


class Switchboard:
    def __init__(self, names, seed=1):
        self.prefix = f"lg{os.getpid() % 100000}"
        self.names = list(names)
        self.fds, self.addresses, self.learned = {}, {}, {}
        self.links = {(a, b): Link() for a in self.names for b in self.names if a != b}
        self.random = random.Random(seed)
        self.counts = {"forwarded": 0, "dropped": 0, "doubled": 0}
        self.running = True
        self.wake_read, self.wake_write = os.pipe()
        try:
            for number, name in enumerate(self.names, 1):
                self._add(number, name)
        except Exception:
            self.close()
            raise
        self.thread = threading.Thread(target=self._forward, daemon=True)
        self.thread.start()

    def namespace(self, name):
        return f"{self.prefix}-{name}"

    def _add(self, number, name):
        ns, tap = self.namespace(name), f"{self.prefix}t{number}"
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.fds[name] = fd
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
        self.addresses[name] = f"10.77.0.{number}"
        run = lambda *a: subprocess.run(a, check=True, capture_output=True, text=True)
        run("ip", "netns", "add", ns)
        run("ip", "link", "set", tap, "netns", ns)
        run("ip", "-n", ns, "link", "set", "lo", "up")
        run("ip", "-n", ns, "addr", "add", f"{self.addresses[name]}/24", "dev", tap)
        run("ip", "-n", ns, "link", "set", tap, "mtu", str(MTU), "up")

    def command(self, name, args):
        return ["ip", "netns", "exec", self.namespace(name), *args]

    # ---- what a test does to it

    def cut(self, a, b, one_way=False):
        self.links[a, b].cut = True
        if not one_way:
            self.links[b, a].cut = True

    def cut_off(self, name):
        for other in self.names:
            if other != name:
                self.cut(name, other)

    def all(self, **what):
        for link in self.links.values():
            for key, value in what.items():
                setattr(link, key, value)

    def heal(self):
        for link in self.links.values():
            link.__init__()

    def close(self):
        self.running = False
        os.write(self.wake_write, b"x")
        if hasattr(self, "thread"):
            self.thread.join(5)
        for fd in (*self.fds.values(), self.wake_read, self.wake_write):
            os.close(fd)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self.namespace(name)], capture_output=True)

    # ---- the switch

    def _forward(self):
        poll = select.epoll()
        by_fd = {fd: name for name, fd in self.fds.items()}
        for fd in (*by_fd, self.wake_read):
            poll.register(fd, select.EPOLLIN)
        later, count = [], 0
        while self.running:
            wait = max(0.0, later[0][0] - time.monotonic()) if later else -1
            for fd, _ in poll.poll(wait):
                if fd not in by_fd:
                    continue
                for _ in range(64):
                    try:
                        frame = os.read(fd, 65536)
                    except (BlockingIOError, OSError):
                        break
                    source = by_fd[fd]
                    self.learned[frame[6:12]] = source
                    target = self.learned.get(frame[0:6])
                    for port in [target] if target and not frame[0] & 1 else self.names:
                        if port == source:
                            continue
                        for delay in self._fate(self.links[source, port]):
                            if delay == 0:
                                self._send(port, frame)
                            else:
                                count += 1
                                heapq.heappush(later, (time.monotonic() + delay, count, port, frame))
            while later and later[0][0] <= time.monotonic():
                _, _, port, frame = heapq.heappop(later)
                self._send(port, frame)
        poll.close()

    def _fate(self, link):
        """Delays of the copies that arrive."""
        if link.cut or (link.loss and self.random.random() < link.loss):
            self.counts["dropped"] += 1
            return ()
        delay = link.delay + (self.random.random() * link.jitter if link.jitter else 0)
        if link.double and self.random.random() < link.double:
            self.counts["doubled"] += 1
            return (delay, delay + self.random.random() * 0.01)
        return (delay,)

    def _send(self, port, frame):
        try:
            os.write(self.fds[port], frame)
            self.counts["forwarded"] += 1
        except OSError:
            self.counts["dropped"] += 1  # its queue is full, or it is going down
