"""The site of the proof, and what it raises when nothing is wrong: exactly this."""

from __future__ import annotations

from gateway.testing.outage import probe

TENANT, SITE = "proof", "outage"
STANDING = ("dam1", "dam2", "dam3", "dam4", "dam5")  # above a limit from the first report on
STANDING_RULE = "standing-seepage"
DATABASE = "proof"

_TEXT = """
packs = ["coal-gas-2016", "tailings", "road-transport", "system-health"]

[site]
tenant = "{tenant}"
id = "{site}"
data_dir = "data"

[console]
enabled = false

[history]
sink = "store"

[delivery]
live_first_after_rows = {live_first_after_rows}

[[adapter]]
name = "mine"
kind = "mine_files"
folder = "inbox"
poll_interval_s = 0.5

[[adapter]]
name = "fleet"
kind = "jt808"
host = "127.0.0.1"
port = {jt808}
report_interval_s = 1.0

[[adapter]]
name = "dams"
kind = "mqtt_json"
host = "127.0.0.1"
port = {onsite}
profile = "tailings-generic"

[[adapter]]
name = "probe"
kind = "mqtt_json"
host = "127.0.0.1"
port = {onsite}

[[adapter.mappings]]
topic = "{device}/{{number}}"
device = "{device}"
point = "{point}"
value = "$.value"
quantity = "probe"

[[sink]]
name = "store"
kind = "influxdb"
url = "http://127.0.0.1:{influx}"
api = "v1"
database = "{database}"

[[sink]]
name = "siren"
kind = "mqtt"
host = "127.0.0.1"
port = {onsite}

[[sink]]
name = "supervision"
kind = "mqtt"
host = "127.0.0.1"
port = {supervision}

[[rule]]
id = "{probe_rule}"
kind = "limit"
value = {{ quantity = "probe" }}
parameters = {{ levels = {{ H = {high} }} }}
priority = "high"

[[rule]]
id = "{standing_rule}"
kind = "limit"
value = {{ ids = [{standing}] }}
parameters = {{ levels = {{ H = 1.0 }} }}
"""


def site_text(
    *, jt808: int, onsite: int, supervision: int, influx: int, live_first_after_rows: int
) -> str:
    """The site file; the numbers are ports."""
    return _TEXT.format(
        tenant=TENANT,
        site=SITE,
        jt808=jt808,
        onsite=onsite,
        supervision=supervision,
        influx=influx,
        live_first_after_rows=live_first_after_rows,
        device=probe.DEVICE,
        point=probe.POINT,
        probe_rule=probe.RULE,
        high=probe.HIGH,
        standing_rule=STANDING_RULE,
        standing=", ".join(f'"{dam}.seepage_flow"' for dam in STANDING),
        database=DATABASE,
    )
