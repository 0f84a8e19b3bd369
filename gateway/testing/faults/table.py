"""The fault table F1 to F25: which are commands here, and where the others are shown.

Numbers in a criterion are the table's; `--patience` multiplies them on a machine that does other
work, and the verdict names the limit it used. A fault with neither a command nor a place says that
it is not built.
"""

from __future__ import annotations

from gateway.testing.faults import changes, consoles, disks, hardship, kills, networks, peers
from gateway.testing.faults.proxy import MODES
from gateway.testing.faults.scenario import Scenario

INFLUXD = "influxd"
MOSQUITTO = ("mosquitto", "mosquitto_sub", "mosquitto_pub")

_COMMANDS: tuple[Scenario, ...] = (
    Scenario(
        "F22-reload",
        "the site file is written anew and SIGHUP sent while alarms stand: rules edited, added, "
        "gone; every fifth file has a fault",
        "timers and alarms go on; a file with a fault changes nothing",
        "samples and transitions lost 0, at their own times; every file answered <= 5 s; the same "
        "process goes on; alarm p99 <= 1 s",
        changes.reloaded,
        MOSQUITTO,
    ),
    Scenario(
        "F1",
        "kill -9 at random moments (5 to 500 ms, and while starting) under load on three wires",
        "nothing acknowledged is lost; a restart evaluates within 5 s",
        "samples and transitions lost 0, none twice; gseq without a gap; nothing called again that "
        "was acknowledged; chain whole; start to first alarm <= 5 s",
        kills.kill_minus_nine,
        MOSQUITTO,
    ),
    Scenario(
        "F5-full",
        "the data folder's disk is full (ballast on a small tmpfs), then has room again",
        "alarms are recorded out of reserved space; telemetry is dropped by count; no restart",
        "transitions 100 % on record; samples stored = promised - counted as dropped; the same "
        "process goes on; alarm p99 meanwhile <= 1 s",
        disks.full_disk,
        ("root", *MOSQUITTO),
    ),
    Scenario(
        "F5-inodes",
        "no inode is left while the spool must begin new segments; then there are some",
        "as F5-full",
        "as F5-full",
        disks.no_inodes,
        ("root", *MOSQUITTO),
    ),
    Scenario(
        "F5-readonly",
        "ext4 finds an error and becomes read-only (errors=remount-ro) under load",
        "nothing is acknowledged that is not on the disk; it is said loudly",
        "after unmount, mount and start: samples and transitions lost 0, chain whole",
        disks.read_only,
        ("root", "mkfs.ext4", *MOSQUITTO),
    ),
    Scenario(
        "F6",
        "bits flipped in spool, cursors, journal, checkpoint, point table between kill and start",
        "the start always succeeds; only records that were hit are lost, quarantined and counted",
        "every start <= 10 s; loss <= the records hit; a copy in quarantine",
        disks.flipped_bits,
        (*MOSQUITTO, INFLUXD),
    ),
    Scenario(
        "F8-wire",
        "the wire to the broker of the alarms: " + ", ".join(MODES[1:]),
        "nothing lost; alarms elsewhere unaffected; everything told after",
        "within 10 s of recovery the subscriber's state = journal; every event told; alarm p99 "
        "meanwhile <= 1 s",
        peers.broker_wire,
        MOSQUITTO,
    ),
    Scenario(
        "F8-process",
        "the broker of the alarms: kill -9, SIGSTOP and SIGCONT, restarted empty",
        "as F8-wire; a broker that forgot its retained rows is told them again",
        "within 10 s of recovery the subscriber's state = journal; alarm p99 meanwhile <= 1 s",
        peers.broker_process,
        MOSQUITTO,
    ),
    Scenario(
        "F8-field",
        "the wire to the broker samples come from: " + ", ".join(MODES[1:]),
        "what that broker has acknowledged comes in when the wire is well again",
        "store = what was promised, none twice; transitions at their own times",
        peers.field_wire,
        MOSQUITTO,
    ),
    Scenario(
        "F9-wire",
        "the wire to the database: " + ", ".join(MODES[1:]),
        "every sample stored once in the end; alarms unaffected",
        "store = what was promised, none twice; alarm p99 meanwhile <= 1 s",
        peers.store_wire,
        (*MOSQUITTO, INFLUXD),
    ),
    Scenario(
        "F9-process",
        "the database: kill -9, SIGSTOP and SIGCONT, restarted empty",
        "as F9-wire; what an emptied database had taken is its own loss, nothing after it",
        "store = what was promised (after the emptying: from then on); alarm p99 <= 1 s",
        peers.store_process,
        (*MOSQUITTO, INFLUXD),
    ),
    Scenario(
        "F12-stop",
        "the gateway stands still (SIGSTOP) for 10, 30 and 60 s while devices go on",
        "no mass alarms, no mass returns",
        "transitions equal a run without the stop; no device called silent; nothing lost",
        hardship.suspended,
        MOSQUITTO,
    ),
    Scenario(
        "F12-step",
        "the system clock steps by an hour, a year, a leap second",
        "delays in event and monotonic time; no mass alarms",
        "transitions equal a run without the step",
        hardship.clock_step,
    ),
    Scenario(
        "F14",
        "partition, half-open link and flapping between two network namespaces",
        "alarms elsewhere unaffected; reconciled afterwards",
        "within 10 s of healing the subscriber's state = journal; every event told; alarm p99 "
        "meanwhile <= 1 s",
        networks.partition,
        ("root", "ip", *MOSQUITTO),
    ),
    Scenario(
        "F17",
        "10,000 alarms within a second, a critical one in their midst",
        "all recorded within 2 s; the critical one told within 250 ms",
        "10,000 transitions exactly; recorded <= 2 s after the first was sent; critical heard "
        "<= 250 ms after it was sent",
        hardship.flood,
        MOSQUITTO,
    ),
    Scenario(
        "F19-cpu",
        "one CPU shared with four busy neighbours",
        "alarms first",
        "alarm p99 <= 1 s; nothing lost",
        hardship.starved,
        (*MOSQUITTO, "setsid"),
    ),
    Scenario(
        "F19-fds",
        "strangers' connections take every file descriptor (RLIMIT_NOFILE)",
        "alarms go on; recovers without a restart",
        "the process goes on; transitions 100 % on record; samples stored = promised - counted as "
        "dropped; alarm p99 <= 1 s",
        hardship.no_descriptors,
        MOSQUITTO,
    ),
    Scenario(
        "F19-memory",
        "the address space ends 48 MiB above what is used (RLIMIT_AS), and history is asked for",
        "history queries are shed, alarms never",
        "the process goes on; transitions 100 % on record; alarm p99 <= 1 s",
        hardship.little_memory,
        MOSQUITTO,
    ),
    Scenario(
        "F21",
        "two instances on one data folder; the first frozen (SIGSTOP), then continued",
        "the second refuses; the first loses nothing",
        "the second ends by itself and says why; everything the first took is stored once",
        kills.second_instance,
        MOSQUITTO,
    ),
    Scenario(
        "F24",
        "screens lost at random messages; the web process killed (kill -9)",
        "a screen shows what the journal has; no screen costs an alarm anything",
        "every frame = the journal at its gseq; the console comes back; alarm p99 <= 1 s",
        consoles.lost_screens,
        MOSQUITTO,
    ),
)


def _elsewhere(number: int, fault: str, criterion: str, shown: str) -> Scenario:
    return Scenario(f"F{number}", fault, criterion, criterion, shown=shown)


_ELSEWHERE = (
    _elsewhere(
        2,
        "power cut: what was not synced is gone, or partly written back",
        "as F1, over 20,000 cuts; every removed sync is noticed",
        "make powercuts; the whole gateway: the seeded simulation",
    ),
    _elsewhere(
        3,
        "torn or partial last record",
        "what was committed before the tear is kept",
        "tests/spool: test_crash.py, test_damage.py; tests/alarms/test_journal_damage.py",
    ),
    _elsewhere(
        4,
        "fsync or write answers EIO or ENOSPC at the n-th call",
        "acknowledged is durable for every n",
        "tests/spool/test_crash.py (every durable operation in turn); the seeded simulation",
    ),
    _elsewhere(
        7,
        "a poison row",
        "it alone is set aside with its reason",
        "tests/runtime/test_deliver.py, tests/sinks/influxdb (a real influxd refuses rows)",
    ),
    _elsewhere(
        10,
        "two samples of one point with one time",
        "both are stored",
        "tests/sinks/test_repeats.py and the contract checks of every sink",
    ),
    _elsewhere(
        11,
        "a long outage of broker and database, then the backlog",
        "drained at ten times real time; live alarms as before; no alarm from the backlog",
        "python -m gateway.testing.outage --minutes 30",
    ),
    _elsewhere(
        13,
        "device clocks: 1970, 2099, backwards, repeated",
        "stored with both times, judged at receipt",
        "tests/runtime/test_intake.py, tests/adapters, the laws of the rule core (make laws)",
    ),
    _elsewhere(
        15,
        "loss, delay, reorder, duplicate, throttle",
        "as F14; throughput degrades smoothly",
        "delay and throttle: F8-wire, F8-field and F9-wire here; TCP mends the rest below the "
        "program; messages lost, repeated and out of order: the seeded simulation",
    ),
    _elsewhere(
        16,
        "ten thousand devices reconnect within a second",
        "those that are connected notice nothing",
        "make storm; tests/adapters/jt808/test_admission.py",
    ),
    _elsewhere(
        18,
        "malformed frames, slow sockets",
        "no unhandled exception, bounded memory",
        "make fuzz, make slow; test_admission.py of jt808 and the codec tests of every adapter",
    ),
    _elsewhere(
        20,
        "the supervision centre is away, or split",
        "the edge is autonomous; one acknowledgement wins",
        "the edge's half is F8; the centre itself is not built",
    ),
    _elsewhere(
        22,
        "upgrade, downgrade while alarms stand",
        "state kept; a newer format refused",
        "a data folder of each format kept, taken over: tests/system/test_golden.py; refusal: "
        "tests/spool/test_damage.py, tests/alarms/test_journal.py",
    ),
    _elsewhere(23, "certificates expire", "warned of 30, 7 and 1 days before", "not built"),
    _elsewhere(25, "a standby takes over", "within 5 s, nothing told twice", "not built"),
)

TABLE: tuple[Scenario, ...] = tuple(
    sorted((*_COMMANDS, *_ELSEWHERE), key=lambda scenario: int(scenario.group[1:]))
)
