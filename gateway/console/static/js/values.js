// Live values of every point: filtered here, patched in place once a second, a click opens the trend.

import { byId, h, icon, keyed, setClass, setIcon, setText } from "./dom.js";
import { NONE, _, count, duration, moment, unitText } from "./i18n.js";
import * as live from "./live.js";
import { deviceOf, isOld, onPlant, onValues, placeOf, reading } from "./plant.js";
import { onKey, rove } from "./shell.js";
import { Trend } from "./trend.js";
import { quality } from "./words.js";

const ROWS_MAX = 400; // more are not read; the filter finds them

let points = [];
let alarmOf = new Map(); // point id -> most urgent standing alarm
let sampleOf = () => null;
let nowMs = 0;
const filters = byId("filters");
const trend = new Trend(() => {
  history.replaceState(null, "", location.pathname);
  refresh();
});

// What is measured of the place comes first, what only moves about in it last.
const CLASSES = ["measured", "state", "vehicle", "person"];

function classOf(point) {
  const carrier = deviceOf(point.device)?.kind;
  if (CLASSES.includes(carrier)) return carrier;
  if (point.kind === "area") return "person";
  if (["lon", "lat", "alt", "speed", "heading"].includes(point.kind)) return "vehicle";
  return ["discrete", "bits"].includes(point.kind) ? "state" : "measured";
}

/** The order of the list: in alarm, then by class; a vehicle's speed before its coordinates. */
function rank(point) {
  const alarm = alarmOf.get(point.id);
  if (alarm) return alarm.priority / 10;
  return 1 + CLASSES.indexOf(point.class) + (point.class === "vehicle" && point.kind !== "speed" ? 0.5 : 0);
}

onPlant((all) => {
  points = all.map((point) => ({ ...point, class: classOf(point) }));
  fill(filters.elements.area, [...new Set(all.map((point) => point.area).filter(Boolean))], (area) => deviceOf(area)?.name || area);
  fill(filters.elements.adapter, [...new Set(all.map((point) => point.adapter).filter(Boolean))]);
  byId("waiting").hidden = true;
  const wanted = new URLSearchParams(location.search).get("point");
  const point = wanted && points.find((p) => p.id === wanted);
  if (point && !trend.point) trend.open(point);
});

function fill(select, names, text = (name) => name) {
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => h("option", { value: name }, text(name))));
  select.value = chosen;
}

live.on("alarms", (frame) => {
  alarmOf = new Map();
  for (const alarm of frame.alarms) {
    if (!alarm.hidden && alarm.point_id && !alarmOf.has(alarm.point_id)) alarmOf.set(alarm.point_id, alarm);
  }
  refresh();
});

onValues((sample, frame) => {
  sampleOf = sample;
  nowMs = frame.time_ms;
  refresh();
  if (trend.point) trend.append(sample(trend.point.index), alarmOf.get(trend.point.id));
});

function matches(point) {
  const { text, area, adapter, quality: wanted, class: asked } = filters.elements;
  if (asked.value && point.class !== asked.value) return false;
  if (area.value && point.area !== area.value) return false;
  if (adapter.value && point.adapter !== adapter.value) return false;
  const words = text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const said = `${point.id} ${point.name} ${placeOf(point)} ${point.area} ${point.quantity}`.toLowerCase();
  if (!words.every((word) => said.includes(word))) return false;
  if (!wanted.value) return true;
  if (wanted.value === "alarm") return alarmOf.has(point.id);
  const good = (sampleOf(point.index)?.quality ?? 0x80) < 0x40;
  return (wanted.value === "good") === good;
}

function refresh() {
  if (!points.length) return;
  const found = points.filter(matches).sort((a, b) => rank(a) - rank(b) || a.index - b.index);
  keyed(byId("rows"), found.slice(0, ROWS_MAX), { key: (point) => point.id, make: makeRow, patch: patchRow });
  byId("none").hidden = found.length > 0;
  const rows = byId("rows");
  if (rows.children.length && !rows.querySelector('[tabindex="0"]')) rows.children[0].tabIndex = 0;
  const shown = Math.min(found.length, ROWS_MAX);
  const text = shown < found.length ? _("{n} of {found} shown: narrow the filter", { n: shown, found: count(found.length) }) : _("{n} of {total} points", { n: count(shown), total: count(points.length) });
  setText(byId("shown"), text);
}

function makeRow(point) {
  const row = h(
    "tr",
    { tabindex: "-1", dataset: { id: point.id } },
    h("td", {}, icon("p1", "mark"), point.name || point.id, h("small", {}, point.id)),
    h("td", { class: (point.name || point.id).includes(placeOf(point)) ? "said" : "" }, placeOf(point)),
    h("td", { class: "num number" }, h("b"), h("span", {}, unitText(point.unit))),
    h("td", {}, h("span", { class: "quality" }, icon("ok"), h("span"))),
    h("td"),
    h("td", { class: "muted" }),
  );
  row.addEventListener("click", () => choose(row));
  row.parts = {
    mark: row.querySelector(".mark"), number: row.querySelector(".number b"), quality: row.querySelector(".quality"),
    qualityText: row.querySelector(".quality span"), qualityIcon: row.querySelector(".quality svg"), time: row.children[4], adapter: row.children[5],
  };
  return row;
}

function patchRow(row, point) {
  row.point = point;
  const { parts } = row;
  const sample = sampleOf(point.index);
  const alarm = alarmOf.get(point.id);
  setClass(row, `point${alarm ? ` alarmed p${alarm.priority}` : ""}${trend.point?.id === point.id ? " chosen" : ""}`);
  parts.mark.toggleAttribute("hidden", !alarm);
  if (alarm) setIcon(parts.mark, `p${alarm.priority}`);
  setText(parts.adapter, point.adapter || (sample && !sample.none ? _("calculated") : NONE));
  setText(parts.number, sample ? reading(point, sample) : NONE);
  const old = isOld(point, sample);
  const said = !sample || sample.none ? { grade: "bad", text: _("no sample yet") } : quality(sample.quality, old);
  setClass(parts.quality, `quality ${said.grade}`);
  setIcon(parts.qualityIcon, said.grade === "good" ? "ok" : said.grade === "bad" ? "close" : "question");
  setText(parts.qualityText, said.text);
  setText(parts.time, sample?.timeMs ? (old ? _("{duration} ago", { duration: duration(sample.ageMs) }) : moment(sample.timeMs, nowMs)) : NONE);
  setClass(parts.time, old ? "old" : "");
}

function choose(row) {
  row.focus();
  trend.open(row.point, sampleOf(row.point.index), alarmOf.get(row.point.id));
  history.replaceState(null, "", `?point=${encodeURIComponent(row.point.id)}`);
  refresh();
}

filters.addEventListener("input", refresh);
filters.addEventListener("submit", (event) => event.preventDefault());
rove(byId("rows"), ".point");
onKey(["Enter"], () => {
  const row = document.activeElement?.closest?.(".point");
  if (!row) return false;
  choose(row);
  return true;
});
onKey(["/"], () => filters.elements.text.focus());
onKey(["Escape"], () => {
  if (document.activeElement === filters.elements.text) filters.elements.text.blur();
  else trend.close();
});
