// The alarm wall: what stands, most urgent first; rows patched in place; A acknowledges.

import { get, post } from "./api.js";
import { byId, h, icon, keyed, setClass, setIcon, setText } from "./dom.js";
import { NONE, _, clock, count, duration, moment, pick, unitText, value } from "./i18n.js";
import * as live from "./live.js";
import { isKnown, isOld, onPlant, onValues, pointOf, reading, subjectOf } from "./plant.js";
import { askOperator, onKey, rove, toast } from "./shell.js";
import { PRIORITY, STATE, TRANSITION, UNSURE, level, sourceOf } from "./words.js";

const ROWS_FIRST = 100;
const ROWS_MAX = 2000;
const EVENTS_KEPT = 60;
const PENDING_MS = 5000; // the truth comes over the socket; after this the button is given back
const BAD = 0x80; // quality codes from here on
const UNSEEN = new Set(["UNACK", "RTNUN", "LATCU"]);

let frame = null;
let all = false;
let selected = null; // key of the row the operator is on
let events = [];
let sampleOf = () => null;
const pending = new Map(); // key -> when the acknowledgement was sent

// ------------------------------------------------------------------ rows

function makeRow(alarm) {
  const row = h(
    "li",
    { tabindex: "-1", dataset: { key: alarm.key } },
    h("div", { class: "badge" }, icon(`p${alarm.priority}`), h("span", {}, h("b"), h("small"))),
    h(
      "div",
      { class: "what" },
      h("strong", {}, h("span"), h("span", { class: "chip level" })),
      h("p", { class: "where" }, h("span"), " ", h("code"), " ", h("span", { class: "chip unsure" }, icon("warn"), h("span")), " ", h("span", { class: "why" })),
    ),
    h("div", { class: "reading" }, h("b"), h("span", { class: "unit" }), h("small")),
    h(
      "div",
      { class: "when" },
      h("div", { class: "state" }, icon("bell"), h("span", {}, h("span"), " ", h("small"))),
      h("div", { class: "since" }, h("b"), " ", h("small")),
    ),
    h("button", { type: "button", class: "ack", onclick: () => acknowledge(alarm.key) }),
    h("p", { class: "action" }),
  );
  const q = (selector) => row.querySelector(selector);
  row.parts = {
    badge: q(".badge svg"), code: q(".badge b"), word: q(".badge small"),
    name: q("strong > span"), level: q(".chip.level"), where: q(".where span"), target: q(".where code"),
    source: q(".why"), unsure: q(".chip.unsure"), unsureText: q(".chip.unsure span"),
    value: q(".reading b"), unit: q(".reading .unit"), limit: q(".reading small"),
    time: q(".since small"), passed: q(".since b"),
    stateIcon: q(".state svg"), state: q(".state span > span"), who: q(".state small"),
    ack: q(".ack"), action: q(".action"),
  };
  return row;
}

/** Rules whose value is a code, and those that make a number of their own out of the samples. */
const CODES = new Set(["area", "bits", "discrete"]);
const MADE = new Set(["deviation", "rate"]);

function patchRow(row, alarm) {
  const parts = row.parts;
  row.alarm = alarm;
  const unseen = UNSEEN.has(alarm.state);
  const classes = ["alarm", `p${alarm.priority}`];
  if (unseen) classes.push("unack");
  if (alarm.active) classes.push("active");
  if (alarm.key === selected) classes.push("selected");
  setClass(row, classes.join(" "));
  setIcon(parts.badge, `p${alarm.priority}`);
  setText(parts.code, `P${alarm.priority}`);
  setText(parts.word, PRIORITY[alarm.priority]);
  setText(parts.name, pick(alarm.name, alarm.rule_id));
  const levels = new Set([level(alarm.level), level(alarm.scheme_level)].filter(Boolean));
  setText(parts.level, [...levels].join(" · "));
  parts.level.hidden = !alarm.level && !alarm.scheme_level;
  patchSubject(parts, alarm);
  patchSource(parts, alarm.citation);
  patchReading(row);
  setIcon(parts.stateIcon, unseen ? "bell" : alarm.hidden ? "hush" : "ok");
  setText(parts.state, STATE[alarm.state] ?? alarm.state);
  setText(parts.who, who(alarm));
  const action = pick(alarm.action, "");
  if (parts.action.textContent !== action) parts.action.replaceChildren(action);
  patchButton(row);
  patchTimes(row);
}

function patchSubject(parts, alarm) {
  const subject = subjectOf(alarm);
  setText(parts.where, subject);
  setText(parts.target, alarm.target === subject ? "" : alarm.target);
}

function patchSource(parts, citation) {
  setText(parts.source, sourceOf(citation));
  const unsure = UNSURE[citation.confidence];
  parts.unsure.hidden = !unsure;
  if (unsure) setText(parts.unsureText, unsure);
  parts.unsure.title = citation.note;
}

/** The value as it is now, and how far it went; where nobody measures on, what raised the alarm. */
function patchReading(row) {
  const { alarm, parts } = row;
  const limit = alarm.limit === null ? "" : _("limit {limit}", { limit: value(alarm.limit, alarm.unit) });
  const point = pointOf(alarm.point_id);
  const sample = point ? sampleOf(point.index) : null;
  if (alarm.rule_kind === "offline") {
    patchSilence(row, point, sample);
    return;
  }
  const measured = sample && sample.value !== null && sample.quality < BAD && point.unit === alarm.unit;
  const current = measured && !MADE.has(alarm.rule_kind);
  const [shown, note] = current ? now(alarm, point, sample) : then(alarm);
  setText(parts.value, shown);
  setText(parts.unit, unitText(alarm.unit));
  setText(parts.limit, [limit, note].filter(Boolean).join(" · "));
}

/** A silence is measured in time; once it is over the value is back. */
function patchSilence({ alarm, parts }, point, sample) {
  const known = sample?.timeMs;
  const passed = known ? duration(sample.ageMs) : NONE;
  const limit = alarm.limit === null ? "" : _("limit {limit}", { limit: duration(alarm.limit * 1000) });
  setText(parts.value, alarm.active || !known ? passed : reading(point, sample));
  setText(parts.unit, alarm.active || !known ? "" : unitText(point.unit));
  setText(parts.limit, [alarm.active ? _("without data") : "", limit].filter(Boolean).join(" · "));
}

function now(alarm, point, sample) {
  const worst = alarm.peak === null || CODES.has(alarm.rule_kind) ? "" : _("worst {value}", { value: value(alarm.peak, alarm.unit) });
  const old = isOld(point, sample) ? _("{duration} ago", { duration: duration(sample.ageMs) }) : "";
  return [reading(point, sample), old || worst];
}

/** Nobody measures: what it came to, where a point was followed; else what raised it. */
function then(alarm) {
  if (alarm.value === null) return [NONE, ""];
  if (alarm.point_id && alarm.peak !== null) return [value(alarm.peak, alarm.unit), _("worst so far")];
  return [value(alarm.value, alarm.unit), _("when raised")];
}

function who(alarm) {
  if (alarm.hidden) return alarm.shelved_until_ms ? _("until {time}", { time: clock(alarm.shelved_until_ms) }) : alarm.hidden_note;
  if (!alarm.acknowledged || !alarm.acknowledged_by) return "";
  return alarm.acknowledged_ms ? `${alarm.acknowledged_by} ${clock(alarm.acknowledged_ms)}` : alarm.acknowledged_by;
}

function patchButton(row) {
  const { alarm, parts } = row;
  const waiting = pending.has(alarm.key) && performance.now() - pending.get(alarm.key) < PENDING_MS;
  const possible = UNSEEN.has(alarm.state);
  parts.ack.hidden = !possible;
  parts.ack.disabled = waiting;
  setText(parts.ack, waiting ? _("Sending …") : _("Acknowledge"));
}

function patchTimes(row) {
  const { alarm, parts } = row;
  const now = live.coreNow();
  const from = alarm.active_ms ?? alarm.condition_ms;
  setText(parts.passed, from === null ? "" : duration((alarm.return_ms ?? now) - from));
  const back = !alarm.active && alarm.return_ms;
  const text = back ? _("back at {time}", { time: moment(alarm.return_ms, now) }) : from === null ? "" : _("since {time}", { time: moment(from, now) });
  setText(parts.time, text);
}

// ------------------------------------------------------------------ the wall

const HOW = { key: (alarm) => alarm.key, make: makeRow, patch: patchRow };

function show() {
  const visible = frame.alarms.filter((alarm) => !alarm.hidden);
  const hidden = frame.alarms.filter((alarm) => alarm.hidden);
  for (const key of pending.keys()) {
    const alarm = frame.alarms.find((a) => a.key === key);
    if (!alarm || alarm.acknowledged) pending.delete(key);
  }
  byId("waiting").hidden = true;
  byId("calm").hidden = visible.length > 0;
  const list = byId("alarms");
  const focused = document.activeElement?.closest?.("#alarms > li");
  const place = focused ? [...list.children].indexOf(focused) : -1;
  keyed(list, all ? visible : visible.slice(0, ROWS_FIRST), HOW);
  keepFocus(list, focused, place);
  keyed(byId("hidden-alarms"), hidden, HOW);
  byId("hidden-box").hidden = !frame.hidden_count;
  setText(byId("hidden-box").querySelector("summary"), _("Shelved, suppressed, out of service: {n}", { n: frame.hidden_count }));
  const total = frame.total_count - frame.hidden_count;
  const rest = total - list.children.length;
  byId("more").hidden = rest <= 0;
  setText(byId("more"), _("{n} more, less urgent: show all", { n: count(rest) }));
  showTiles();
}

function keepFocus(list, focused, place) {
  if (focused && !focused.isConnected && list.children.length) {
    list.children[Math.min(place, list.children.length - 1)].focus();
  } else if (focused?.isConnected && document.activeElement !== focused && !focused.contains(document.activeElement)) {
    focused.focus();
  }
  if (list.children.length && !list.querySelector('[tabindex="0"]')) list.children[0].tabIndex = 0;
}

function showTiles() {
  for (const { priority, standing, unacknowledged } of frame.counts) {
    const tile = byId("tiles").querySelector(`[data-priority="${priority}"]`);
    setClass(tile, `tile p${priority}${standing ? " some" : ""}${unacknowledged ? " urgent" : ""}`);
    setText(tile.querySelector(".tile-count"), count(standing));
    const note = unacknowledged ? _("{n} unacknowledged", { n: count(unacknowledged) }) : standing ? _("all acknowledged") : _("none");
    setText(tile.querySelector(".tile-note"), note);
  }
}

live.on("alarms", async (pushed) => {
  frame = pushed;
  takeEvents(pushed);
  if (all && pushed.total_count > pushed.alarms.length) {
    frame = await get("/api/alarms", { limit: ROWS_MAX }).catch(() => pushed);
  }
  show();
});

byId("more").addEventListener("click", async () => {
  all = true;
  try {
    frame = await get("/api/alarms", { limit: ROWS_MAX });
  } catch (fault) {
    toast(fault.message, true);
  }
  show();
});

onPlant(() => {
  if (!frame) return;
  show();
  showEvents();
});

onValues((newest) => {
  sampleOf = newest;
  for (const row of byId("alarms").children) patchReading(row);
});

setInterval(() => {
  if (!frame) return;
  for (const row of byId("alarms").children) {
    patchTimes(row);
    patchButton(row);
  }
  const { lastMs } = live.age();
  if (lastMs) setText(byId("calm").querySelector("span"), _("Data of {time}", { time: clock(lastMs) }));
}, 1000);

// The calm face is a statement about the plant: without fresh data it is not made.
live.onAge((age) => {
  const title = age.stale ? _("Unknown: no data") : _("No standing alarms");
  setText(byId("calm").querySelector("strong"), title);
  setIcon(byId("calm").querySelector("svg"), age.stale ? "question" : "ok");
});

// ------------------------------------------------------------------ acknowledge

async function acknowledge(key) {
  const seen = frame?.alarms.find((alarm) => alarm.key === key);
  if (!seen || !UNSEEN.has(seen.state) || pending.has(key)) return;
  const name = await askOperator();
  if (!name) return;
  pending.set(key, performance.now());
  redraw(key);
  try {
    await post(`/api/alarms/${encodeURIComponent(key)}/acknowledge`, { operator: name, token: seen.token });
  } catch (fault) {
    pending.delete(key);
    redraw(key);
    toast(fault.message, true);
    return;
  }
  setTimeout(() => {
    pending.delete(key);
    redraw(key);
  }, PENDING_MS);
}

function redraw(key) {
  const row = byId("alarms").keyed?.get(key);
  if (row) patchButton(row);
}

rove(byId("alarms"), ".alarm", (row) => {
  selected = row.dataset.key;
  for (const other of byId("alarms").children) other.classList.toggle("selected", other === row);
});
byId("alarms").addEventListener("click", (event) => {
  if (!event.target.closest("button")) event.target.closest(".alarm")?.focus();
});
onKey(["Enter"], (event) => {
  const row = event.target.closest?.(".alarm");
  const id = event.target === row ? row.alarm.point_id : null;
  // A row may be on the screen before the plant is known; the key pressed then counts as well.
  if (!id || (isKnown() && !pointOf(id))) return false;
  location.assign(`/values?point=${encodeURIComponent(id)}`);
  return true;
});
onKey(["a"], () => {
  const row = document.activeElement?.closest?.(".alarm");
  if (row) acknowledge(row.dataset.key);
  else byId("alarms").querySelector(".alarm.unack")?.focus();
});

// ------------------------------------------------------------------ events

async function takeEvents(pushed) {
  const last = events.length ? events[events.length - 1].gseq : null;
  const first = pushed.events.length ? pushed.events[0].gseq : null;
  const known = last !== null && pushed.gseq >= last;
  if (!known) events = pushed.events; // the first list, or a journal that began anew
  else if (first !== null && first > last + 1) await fillGap(last, pushed.events);
  else events = events.concat(pushed.events.filter((event) => event.gseq > last));
  events = events.slice(-EVENTS_KEPT);
  showEvents();
}

async function fillGap(last, pushed) {
  try {
    const page = await get("/api/events", { after_gseq: last, limit: 1000 });
    events = events.concat(page.events);
  } catch {
    events = pushed;
  }
}

function showEvents() {
  keyed(byId("events"), [...events].reverse(), {
    key: (event) => `${event.gseq}:${event.key}`,
    make: (event) =>
      h(
        "li",
        { class: `p${event.priority}` },
        h("time", {}, clock(event.time_ms)),
        icon(`p${event.priority}`),
        h("p", {}, h("span", { class: "verb" }, TRANSITION[event.transition] ?? event.transition), ` ${pick(event.name, event.key)} ${level(event.level)}`, h("small")),
      ),
    patch: (item, event) => setText(item.querySelector("small"), eventDetail(event)),
  });
}

function eventDetail(event) {
  const reading = event.value === null || CODES.has(event.rule_kind) ? "" : `${value(event.value, event.unit)} ${unitText(event.unit)}`;
  const late = event.late ? _("late data") : "";
  return [subjectOf(event), event.actor || reading, late, event.comment].filter(Boolean).join(" · ");
}
