// What every page has: clock, link state, banner, sound, operator, keys, announcements.

import { byId, setClass, setIcon, setText } from "./dom.js";
import { _, clock, duration, full, pick, setZone, unitText, value } from "./i18n.js";
import * as live from "./live.js";
import { subjectOf } from "./plant.js";
import * as sound from "./sound.js";
import { PRIORITY } from "./words.js";

const ANNOUNCED_MAX = 2; // P1 and P2 interrupt a screen reader and sound the horn
const TOAST_MS = 6000;
const FIRST_MS = 5000; // a page just opened has not lost anything yet

// ------------------------------------------------------------------ operator

export const operator = () => localStorage.getItem("operator") ?? "";
let operatorAsked = null;

function showOperator() {
  setText(byId("operator").querySelector("span"), operator() || _("Operator"));
}

/** The operator's name, asked for once; "" when the question was cancelled. */
export function askOperator(again = false) {
  if (operator() && !again) return Promise.resolve(operator());
  const dialog = byId("operator-dialog");
  byId("operator-name").value = operator();
  dialog.returnValue = "";
  dialog.showModal();
  byId("operator-name").select();
  return new Promise((resolve) => {
    operatorAsked = resolve;
  });
}

byId("operator-dialog").querySelector("form").addEventListener("submit", () => {
  const name = byId("operator-name").value.trim();
  if (name) localStorage.setItem("operator", name);
});
byId("operator-dialog").addEventListener("close", () => {
  showOperator();
  operatorAsked?.(operator());
  operatorAsked = null;
});
byId("operator").addEventListener("click", () => askOperator(true));
showOperator();

// ------------------------------------------------------------------ toast, dialogs, keys

let toastTimer = null;

export function toast(text, bad = false) {
  const element = byId("toast");
  setText(element, text);
  element.classList.toggle("bad", bad);
  element.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (element.hidden = true), TOAST_MS);
}

for (const button of document.querySelectorAll("dialog [data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
byId("help").addEventListener("click", () => byId("help-dialog").showModal());

const keys = new Map();

/** Calls `action(event)` on the key, unless the operator is writing or a dialog is open. */
export function onKey(names, action) {
  for (const name of names) keys.set(name, action);
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writing = event.target.closest("input, textarea, select");
  if (document.querySelector("dialog[open]") || (writing && event.key !== "Escape")) return;
  const action = keys.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (!action) return;
  if (action(event) !== false) event.preventDefault();
});

onKey(["?"], () => byId("help-dialog").showModal());
onKey(["m"], () => silence());
["/", "/values", "/plan", "/completeness", "/system"].forEach((path, index) => {
  onKey([String(index + 1)], () => location.assign(path));
});

/** Arrow keys walk along the rows of `list`; only one of them is a tab stop. */
export function rove(list, selector, chosen = () => {}) {
  const move = (step) => {
    const rows = [...list.querySelectorAll(selector)];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement.closest(selector));
    const next = rows[Math.min(Math.max(at < 0 ? 0 : at + step, 0), rows.length - 1)];
    next.focus();
  };
  onKey(["ArrowDown"], () => move(1));
  onKey(["ArrowUp"], () => move(-1));
  list.addEventListener("focusin", (event) => {
    const row = event.target.closest(selector);
    if (!row) return;
    for (const other of list.querySelectorAll(`${selector}[tabindex="0"]`)) other.tabIndex = -1;
    row.tabIndex = 0;
    chosen(row);
  });
}

// ------------------------------------------------------------------ sound

let standing = [];
const silenced = new Set(); // occurrences the operator at this screen has heard

const occurrence = (alarm) => `${alarm.key}#${alarm.occ_no}#${alarm.level}`;
const asking = () => standing.filter((a) => a.state === "UNACK" && a.priority <= ANNOUNCED_MAX && !a.planned);

function updateSound() {
  const loud = asking().filter((alarm) => !silenced.has(occurrence(alarm)));
  const priority = loud.length ? Math.min(...loud.map((alarm) => alarm.priority)) : 0;
  const audible = sound.wanted() && sound.running();
  sound.sound(audible ? priority : 0);
  const button = byId("sound");
  setIcon(button.querySelector("svg"), audible ? "sound" : "mute");
  const text = audible ? _("Sound on") : sound.wanted() ? _("Sound: click to start") : _("Sound off");
  setText(button.querySelector("span"), text);
  button.setAttribute("aria-pressed", String(audible));
  setClass(button, audible ? "tool" : "tool off");
  byId("silence").disabled = !priority;
  setClass(byId("silence"), priority && audible ? "tool sounding" : "tool");
}

function silence() {
  for (const alarm of asking()) silenced.add(occurrence(alarm));
  updateSound();
}

byId("sound").addEventListener("click", () => {
  if (sound.wanted() && sound.running()) sound.disarm();
  else sound.arm();
});
byId("silence").addEventListener("click", silence);
sound.onChange(updateSound);

// ------------------------------------------------------------------ alarms, on every page

let known = null; // occurrences seen so far; null until the first list

function announce(frame) {
  standing = frame.alarms;
  const now = new Map(asking().map((alarm) => [occurrence(alarm), alarm]));
  const fresh = known === null ? [] : [...now].filter(([name]) => !known.has(name)).map(([, a]) => a);
  known = new Set(now.keys());
  for (const name of silenced) if (!now.has(name)) silenced.delete(name);
  if (fresh.length) setText(byId("announcer"), fresh.slice(0, 3).map(sentence).join(" "));
  const unseen = frame.counts.filter((c) => c.unacknowledged);
  const total = unseen.reduce((sum, c) => sum + c.unacknowledged, 0);
  const badge = byId("nav-count");
  badge.hidden = !total;
  setText(badge, String(total));
  setClass(badge, total ? `count p${unseen[0].priority}` : "count");
  document.title = `${total ? `(${total}) ` : ""}${document.title.replace(/^\(\d+\) /, "")}`;
  updateSound();
}

function sentence(alarm) {
  return _("New alarm P{priority} {word}: {name}, {place}, {value} {unit}.", {
    priority: alarm.priority,
    word: PRIORITY[alarm.priority],
    name: pick(alarm.name, alarm.rule_id),
    place: subjectOf(alarm),
    value: value(alarm.value, alarm.unit),
    unit: unitText(alarm.unit),
  });
}

/** The site's name in the language of the page, where it has one. */
export const siteName = (status) => pick(status.site_names ?? {}, status.site_name || status.site);

live.on("alarms", announce);
live.on("status", (status) => {
  setZone(status.time_zone);
  setText(byId("site-name"), siteName(status));
});

// ------------------------------------------------------------------ clock, link, banner

live.onAge((age) => {
  const state = byId("link-state");
  const early = age.never && performance.now() <= FIRST_MS;
  const mood = early ? "waiting" : age.stale ? "lost" : "live";
  setClass(state, `link-state ${mood}`);
  const words = { waiting: _("Waiting for data"), lost: _("Link lost"), live: _("Live") };
  setText(state.querySelector("span"), words[mood]);
  state.title = words[mood];
  const banner = byId("banner");
  const [title, text] = [banner.querySelector("strong"), banner.querySelector("span")];
  const lost = age.stale && (!age.never || performance.now() > FIRST_MS);
  if (lost) {
    const what = age.web ? _("No data from the gateway's core.") : _("No connection to the gateway.");
    setText(title, age.lastMs === null ? what : [what, _("What is shown is old.")].join(" "));
    setText(text, age.lastMs === null ? _("Nothing has been received yet.") : lastSeen(age));
  }
  if (banner.hidden === lost) banner.hidden = !lost;
});

function lastSeen(age) {
  const passed = duration(live.coreNow() - age.lastMs);
  return _("Last data {time}, {duration} ago.", { time: full(age.lastMs), duration: passed });
}

setInterval(() => setText(byId("clock"), clock(live.coreNow())), 250);
