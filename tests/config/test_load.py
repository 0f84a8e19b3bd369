"""Site files: all faults at once with their lines, secrets, points, rules, what comes out."""

import os
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from gateway.config import Kinds, check, load, warnings
from gateway.config.schema import Document
from gateway.model.errors import ConfigError
from gateway.model.point import PointKind
from gateway.model.rule import Confidence, GroupBy, Priority, Selector


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Frozen):
    ca_file: Path = Path()


class Files(Frozen):
    folder: Path
    poll_interval_s: float = Field(default=2.0, gt=0)
    pattern: str = ".*"
    tls: Tls = Tls()

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, text: str) -> str:
        import re

        re.compile(text)  # raises re.error, which is no ValueError
        return text


class Broker(Frozen):
    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    password: SecretStr = SecretStr("")
    user: Literal["a", "b"] = "a"
    plain: str = ""


class Store(Frozen):
    path: str = "x.duckdb"


class Level(Frozen):
    limit: float


class Limit(Frozen):
    levels: dict[str, float | Level]


class Free(Frozen):
    expression: str


KINDS = Kinds(
    adapters={"files": Files, "broker": Broker},
    sinks={"store": Store, "broker": Broker},
    rule_kinds={"limit": Limit, "calculation": Free, "pair": Free},
    rule_inputs={"calculation": None, "pair": ("left", "right")},
    rule_checks={
        "limit": lambda rule, parameters: ["no level"] if not parameters.levels else [],
    },
    packs=("coal-gas-2016", "tailings"),
)

WHOLE = """\
packs = ["coal-gas-2016"]
points_file = "points.csv"

[site]
tenant = "demo"
id = "demo-site"
name = { zh = "示例", en = "Example" }
data_dir = "data"

[history]
sink = "store"

[[adapter]]
name = "gas"
kind = "files"
folder = "inbox"
tls = { ca_file = "ca.pem" }

[[sink]]
name = "store"
kind = "store"

[[sink]]
name = "centre"
kind = "broker"
password = "${env:BROKER_PASSWORD}"

[[point]]
id = "a"
kind = "discrete"
states = { 0 = "停", 1 = "开" }
adapter = "gas"

[[rule]]
id = "return-air"
kind = "limit"
value = { quantity = "methane", location_class = "T2" }
parameters = { levels = { H = 1.0, HH = { limit = 1.5 } } }
name = "回风甲烷"
priority = "high"
on_delay_s = 2
group_by = "point"
citation = { standard = "X 1", clause = "4.2", confidence = "unconfirmed" }

[[rule]]
id = "sum"
kind = "pair"
inputs.left = { ids = ["a"] }
inputs.right = { ids = ["b"] }
parameters.expression = "left + right"

[[pack_override]]
rule = "coal-gas-2016.t1-methane"
parameters = { levels = { H = 0.8 } }
reason = "stricter here"
"""
TABLE = "测点编号,监测量,单位,位置类别\nb,甲烷,%CH4,T2\n"
SECRET = {"BROKER_PASSWORD": "hunter-2"}


def site(tmp_path, text=WHOLE, table=TABLE):
    (tmp_path / "points.csv").write_text(table, encoding="utf-8")
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(path, environment=SECRET):
    return [
        str(f).replace(f"{path.parent}{os.sep}", "")
        for f in check(path, KINDS, environment=environment)
    ]


def test_a_whole_file_becomes_what_the_gateway_is_told(tmp_path):
    config = load(site(tmp_path), KINDS, environment=SECRET)
    assert warnings(config) == []
    assert (config.site.tenant, config.site.id, config.site.language) == ("demo", "demo-site", "zh")
    assert config.data_dir == tmp_path / "data"
    assert not config.data_dir.exists(), "reading creates nothing"
    assert [(a.name, a.kind) for a in config.adapters] == [("gas", "files")]
    assert config.adapters[0].settings.folder == tmp_path / "inbox"
    assert config.adapters[0].settings.tls.ca_file == tmp_path / "ca.pem"
    assert [(s.name, s.kind) for s in config.sinks] == [("store", "store"), ("centre", "broker")]
    assert config.sinks[1].settings.password.get_secret_value() == "hunter-2"
    a, b = config.points
    assert (a.id, a.kind, a.states) == ("a", PointKind.DISCRETE, {0: "停", 1: "开"})
    assert (b.id, b.quantity, b.location_class) == ("b", "methane", "T2")
    limit, pair = config.rules
    assert limit.inputs == {"value": Selector(quantity="methane", location_class="T2")}
    assert limit.parameters == {"levels": {"H": 1.0, "HH": {"limit": 1.5}}}
    assert (limit.priority, limit.on_delay_s, limit.group_by) == (Priority.HIGH, 2.0, GroupBy.POINT)
    assert limit.name == {"zh": "回风甲烷", "en": "回风甲烷"}
    assert limit.citation.confidence is Confidence.UNCONFIRMED
    assert pair.inputs == {"left": Selector(ids=("a",)), "right": Selector(ids=("b",))}
    assert config.packs == ("coal-gas-2016",)
    (override,) = config.pack_overrides
    assert override.parameters == {"levels": {"H": 0.8}}
    assert (config.console.port, config.spool.commit_window_ms) == (8808, 0.0)


BROKEN = """\
pakcs = []
packs = ["coal-gas-2016", "gold"]
[site]
tenant = "demo site"
id = "x"
time_zone = "Mars/Olympus"
[console]
port = 99999
[history]
sink = "nowhere"
[[adapter]]
name = "gas"
kind = "files"
folder = "in"
poll_interval_ms = 5
[[adapter]]
name = "gas"
kind = "modbus"
[[rule]]
id = "r"
kind = "limit"
value = {}
parameters.levels.H = { limit = "high" }
[[sink]]
kind = "store"
[[sink]]
name = "b"
kind = "broker"
password = "${env:NOT_SET}"
"""
EXPECTED = """\
site.toml:1: pakcs: unknown key; did you mean packs?
site.toml:2: packs[1]: one of coal-gas-2016, tailings
site.toml:4: site.tenant: 1 to 128 characters without blanks and without / + #
site.toml:6: site.time_zone: a time zone name such as Asia/Shanghai
site.toml:8: console.port: input should be less than or equal to 65535
site.toml:10: history.sink: one of b
site.toml:15: adapter[0].poll_interval_ms: unknown key; did you mean poll_interval_s?
site.toml:17: adapter[1].name: this adapter name only once
site.toml:18: adapter[1].kind: one of broker, files
site.toml:23: rule[0].parameters.levels.H.limit: input should be a valid number, unable to parse string as a number
site.toml:24: sink[0].name: required
site.toml:29: sink[1].password: the environment variable NOT_SET to be set
"""


def test_every_fault_is_found_at_once_each_on_its_own_line(tmp_path):
    assert faults(site(tmp_path, BROKEN)) == EXPECTED.splitlines()


def test_load_raises_exactly_what_check_returns(tmp_path):
    path = site(tmp_path, BROKEN)
    with pytest.raises(ConfigError) as caught:
        load(path, KINDS, environment={})
    assert caught.value.faults == check(path, KINDS, environment={})


HEAD = '[site]\ntenant = "t"\nid = "s"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "packs = []\n", ["site.toml:4: site.packs: unknown key here; packs stands above the first [table] of the file"]),
        (HEAD + "[[sink]]\nname='s'\nkind='store'\npacks = []\n", ["site.toml:7: sink[0].packs: unknown key here; packs stands above the first [table] of the file"]),
        ("", ["site.toml: site: required"]),
        ("[site", ["site.toml:1: valid TOML (Expected ']' at the end of a table declaration)"]),
        ("a = 1\n\nb = = 2", ["site.toml:3: valid TOML (Invalid value)"]),
        ("a = 1\na = 2\n", ["site.toml:2: valid TOML (Cannot overwrite a value)"]),
        (HEAD + "console = 1", ["site.toml:4: site.console: unknown key; known are tenant, id, name, time_zone, data_dir, language"]),
        ("[site]\nid = 'a'\n", ["site.toml:1: site.tenant: required"]),
        ("rule = 1\n" + HEAD, ["site.toml:1: rule: input should be a valid tuple"]),
        (HEAD + "[[rule]]\nid='r'\nkind='limit'\nparameters={levels={}}\n", ["site.toml:4: rule[0].value: exactly the inputs value", "site.toml:7: rule[0].parameters: no level"]),
        (HEAD + "[[rule]]\nid='r'\nkind='pair'\nparameters.expression=''\ninputs.left={}\n", ["site.toml:8: rule[0].inputs: exactly the inputs left, right"]),
        (HEAD + "[[rule]]\nid='r'\nkind='calculation'\nparameters.expression=''\n", ["site.toml:4: rule[0].inputs: at least one input"]),
        (HEAD + "[[rule]]\nid='r'\nkind='unheard'\n", ["site.toml:6: rule[0].kind: one of calculation, limit, pair"]),
        (HEAD + "[[rule]]\nid='r'\nkind='limit'\nvalue.quantty='x'\nparameters.levels.H=1\npriority='urgent'\n", [
            "site.toml:7: rule[0].value.quantty: unknown key; did you mean quantity?",
            "site.toml:9: rule[0].priority: critical, high, medium or low"]),
        (HEAD + "[[adapter]]\nname='g'\nkind='files'\nfolder='x'\npattern='('\n", ["site.toml:4: adapter[0]: settings its kind accepts (PatternError: missing ), unterminated subpattern at position 0)"]),
        (HEAD + "[[point]]\nid='a'\nadapter='none'\n[[point]]\nid='a'\n", ["site.toml:6: point[0].adapter: one of none (there are none)", "site.toml:8: point[1].id: this point id only once"]),
        (HEAD + "[[point]]\nid='a b'\nkind='analogue'\n", ["site.toml:5: point[0].id: 1 to 128 characters without blanks and without / + #", "site.toml:6: point[0].kind: input should be 'analog', 'discrete', 'counter', 'bits', 'lon', 'lat', 'alt', 'speed', 'heading' or 'area'"]),
        (HEAD + "[[pack_override]]\nrule='tailings.x'\n", ["site.toml:5: pack_override[0].rule: a rule of one of the packs none (there are none), written pack.rule"]),
        (HEAD + "[spool]\nbytes_max_mb=100\n", ["site.toml:5: spool.bytes_max_mb: at least twice segment_bytes_max_mb (64)"]),
        ("points_file = 'no.csv'\n" + HEAD, ["site.toml:1: points_file: a file; no.csv is none"]),
        (HEAD + "[judging]\nlateness_s = nan\n", ["site.toml:5: judging.lateness_s: input should be a finite number"]),
    ],
)  # fmt: skip
def test_one_fault_one_line(tmp_path, text, expected):
    found = faults(site(tmp_path, text))
    assert [f.replace("(error:", "(PatternError:") for f in found] == expected


def test_faults_of_a_point_table_name_its_rows(tmp_path):
    table = (
        "某某测点表,,,\n测点编号,量程下限,类型,接入\na,0,模拟量,gas\nb c,0,,\na,x,,\nd,1,奇怪,无\n"
    )
    text = WHOLE.replace('[[point]]\nid = "a"\n', '[[point]]\nid = "z"\n')
    assert faults(site(tmp_path, text, table)) == [
        "points.csv:4: 测点编号: 1 to 128 characters without blanks and without / + #",
        "points.csv:5: 量程下限: a number",
        "points.csv:5: 测点编号: this point id only once",
        "points.csv:6: 接入: one of gas",
        "points.csv:6: 类型: Input should be 'analog', 'discrete', 'counter', 'bits', 'lon', 'lat', 'alt', 'speed', 'heading' or 'area'",
    ]


def test_a_point_in_both_the_file_and_the_table_is_a_fault(tmp_path):
    table = "id\nb\na\n"
    assert faults(site(tmp_path, table=table)) == ["points.csv:3: id: this point id only once"]


def test_a_file_that_is_not_there_or_no_text_is_one_fault(tmp_path):
    assert faults(tmp_path / "none.toml")[0].startswith("none.toml: a file that can be read")
    path = tmp_path / "site.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    assert faults(path) == ["site.toml:2: text in UTF-8"]


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_what_editors_on_windows_write_is_read(tmp_path, prefix, ends):
    path = site(tmp_path)
    path.write_bytes(prefix + WHOLE.encode().replace(b"\n", ends))
    assert faults(path) == []


def test_secrets_stay_out_of_repr_and_out_of_faults(tmp_path):
    text = WHOLE.replace("password = ", "plain = ")
    config = load(site(tmp_path, text), KINDS, environment=SECRET)
    assert config.sinks[1].settings.plain == "hunter-2"
    assert "hunter-2" not in repr(config)
    assert "hunter-2" not in str(config)
    wrong = WHOLE.replace("password = ", "port = ").replace(
        'kind = "broker"', 'kind = "broker"\nuser = "${env:BROKER_PASSWORD}"'
    )
    for line in faults(site(tmp_path, wrong)):
        assert "hunter-2" not in line


def test_a_reference_may_stand_inside_a_text_and_in_any_section(tmp_path):
    text = WHOLE.replace('id = "demo-site"', 'id = "site-${env:NUMBER}-${env:NUMBER}"')
    config = load(site(tmp_path, text), KINDS, environment={**SECRET, "NUMBER": "7"})
    assert config.site.id == "site-7-7"


def test_the_process_environment_is_read_when_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("BROKER_PASSWORD", "from-the-process")
    config = load(site(tmp_path), KINDS)
    assert config.sinks[1].settings.password.get_secret_value() == "from-the-process"


@pytest.mark.parametrize(
    ("of", "name"),
    [(lambda c: c, "packs"), (lambda c: c.site, "id"), (lambda c: c.adapters[0], "name")],
)
def test_a_configuration_cannot_be_changed(tmp_path, of, name):
    config = load(site(tmp_path), KINDS, environment=SECRET)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(of(config), name, "other")


def test_a_rule_no_configured_point_matches_is_a_warning_and_no_fault(tmp_path):
    text = WHOLE.replace('quantity = "methane"', 'quantity = "rain"').replace(
        'id = "a"\n', 'id = "a"\nquantity = "methane"\n'
    )
    config = load(site(tmp_path, text), KINDS, environment=SECRET)
    (line,) = warnings(config)
    assert "return-air" in line
    empty = load(site(tmp_path, HEAD), KINDS)
    assert warnings(empty) == []


@pytest.mark.slow
@given(
    st.one_of(
        st.text(max_size=200),
        st.text(alphabet="[]{}\"'=.,#\n \\site_adaprulkndpoy1${env:X}", max_size=200),
        st.lists(st.sampled_from(WHOLE.splitlines() + BROKEN.splitlines() + ["[[rule]]", "[site.x]", "value = 3", "[[packs]]", "rule = {}", "inputs = []", "spool = 1", "adapter = [1, {}]", "name = { zh = 1 }"]), max_size=25).map("\n".join),
    )
)  # fmt: skip
def test_no_text_makes_the_check_raise(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    found = check(path, KINDS, environment={})
    lines = text.count("\n") + text.count("\r") + 1
    assert all(0 <= fault.line <= lines for fault in found)
    if not found:
        load(path, KINDS, environment={})


@pytest.mark.parametrize(
    "text", ["a" + ".a" * 700 + " = 1", "a = " + "[" * 3000, "a = 1" + "0" * 5000]
)
def test_texts_made_to_hurt_are_faults(tmp_path, text):
    assert faults(site(tmp_path, text)) != []


def test_the_example_of_the_decision_record_is_a_whole_document():
    record = Path(__file__).parents[2] / "docs" / "decisions" / "0003-configuration.md"
    import tomllib

    example = record.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    document = Document.model_validate(tomllib.loads(example))
    for section in ("spool", "judging", "console"):
        default = Document.model_fields[section].default
        assert getattr(document, section) == default, f"{section}: the example shows the defaults"
        assert set(tomllib.loads(example)[section]) == set(type(default).model_fields)


ALARMS = """\
[site]
tenant = "t"
id = "s"
[alarms]
rejoin_window_s = 30
parent_release_s = 20
realarm_after_s = { critical = 60, HIGH = 600 }
realarm_max = 3
shelf_max_s = { high = 1800 }
flood_start = 20
flood_end = 8
[[alarm_group]]
name = "fan"
rules = ["fan.*"]
areas = ["3101"]
mode = "suppress"
[[escalation]]
priority = "critical"
steps = [{ after_s = 60, recipients = ["lead"] }, { after_s = 300, recipients = ["a", "b"] }]
"""


def test_what_a_site_says_of_its_alarms(tmp_path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(ALARMS, encoding="utf-8")
    config = load(site, KINDS)
    assert config.alarms.realarm_after_s == {Priority.CRITICAL: 60.0, Priority.HIGH: 600.0}
    assert config.alarms.shelf_max_s == {Priority.HIGH: 1800.0}
    assert (config.alarms.flood_start, config.alarms.parent_release_s) == (20, 20.0)
    (group,) = config.alarm_groups
    assert (group.name, group.rules, group.mode) == ("fan", ("fan.*",), "suppress")
    (escalation,) = config.escalations
    assert escalation.priority is Priority.CRITICAL
    assert [(s.after_s, s.recipients) for s in escalation.steps] == [
        (60.0, ("lead",)),
        (300.0, ("a", "b")),
    ]


def test_a_site_that_says_nothing_of_alarms_has_the_defaults(tmp_path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[site]\ntenant = "t"\nid = "s"\n', encoding="utf-8")
    config = load(site, KINDS)
    assert (config.alarms.flood_start, config.alarms.flood_end) == (10, 5)
    assert (config.alarms.realarm_after_s, config.alarm_groups, config.escalations) == ({}, (), ())


ALARM_FAULTS = [
    ("[alarms]\nshelf_max_s = { critical = 10 }", 5, "critical is never shelved"),
    ("[alarms]\nshelf_max_s = { high = 3601 }", 5, "high at most 3600 s: only shorter"),
    ("[alarms]\nshelf_max_s = { urgent = 10 }", 5, "critical, high, medium or low"),
    ("[alarms]\nrealarm_after_s = { high = 1 }", 5, "greater than or equal to 10"),
    ("[alarms]\nflood_start = 5\nflood_end = 5", 4, "flood_end below flood_start"),
    ("[alarms]\nrealarm_maximum = 5", 5, "did you mean realarm_max?"),
    ('[[alarm_group]]\nname = "g"', 4, "a group of everything explains nothing"),
    ('[[alarm_group]]\nname = "g"\nareas = ["x"]\nmode = "hide"', 7, "'mark' or 'suppress'"),
    ('[[alarm_group]]\nname="g"\nareas=["x"]\n[[alarm_group]]\nname="g"\nareas=["y"]', 8,
     "this alarm_group name only once"),
    ('[[escalation]]\npriority = "high"\nsteps = []', 6, "at least 1 item"),
    ('[[escalation]]\npriority = "high"\nsteps = [{ after_s = 9, recipients = [] }]', 6,
     "at least 1 item"),
    (('[[escalation]]\npriority = "high"\nsteps = [{ after_s = 9, recipients = ["a"] },\n'
     '{ after_s = 9, recipients = ["b"] }]'), 6, "every after_s longer than the one before"),
    ('[[escalation]]\npriority = "soon"\nsteps = [{ after_s = 9, recipients = ["a"] }]', 5,
     "critical, high, medium or low"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "expected"), ALARM_FAULTS)
def test_a_fault_in_what_a_site_says_of_its_alarms_has_its_line(tmp_path, text, line, expected):
    site = tmp_path / "site.toml"
    site.write_text(f'[site]\ntenant = "t"\nid = "s"\n{text}\n', encoding="utf-8")
    (fault,) = check(site, KINDS)
    assert (fault.line, expected in fault.expected) == (line, True), fault
