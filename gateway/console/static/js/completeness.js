// The completeness ledger: which points were not seen, since when, why; a strip over time for each.

import { get } from "./api.js";
import { byId, h, keyed, setClass, setFacts, setText } from "./dom.js";
import { NONE, _, count, day, duration, minute, moment } from "./i18n.js";
import { coreNow } from "./live.js";
import { deviceOf } from "./plant.js";
import "./shell.js";
import { GAP, MISSING } from "./words.js";

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
const GONE_MS = 3 * MINUTE_MS; // the last minutes are not closed yet
const REFRESH_MS = 60_000;
const BINS = 96; // a quarter of an hour each, of a day
const ROWS = 100;
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 20;
const SMALLEST = 5; // a gap that is there is seen

const asked = { hours: 24, by: "point", points: "*" };
let wanted = 0; // number of the newest question: an older answer is not shown
let timer = null;

async function refresh() {
  clearTimeout(timer);
  const mine = ++wanted;
  const to = Math.ceil(coreNow() / MINUTE_MS) * MINUTE_MS;
  try {
    const answer = await get("/api/completeness", {
      from_ms: to - asked.hours * HOUR_MS,
      to_ms: to,
      by: asked.by,
      points: asked.points,
      bins: Math.min(BINS, asked.hours * 60),
      limit: ROWS,
    });
    if (mine === wanted) show(answer);
  } catch (fault) {
    if (mine === wanted) {
      byId("books").hidden = true;
      byId("waiting").hidden = false;
      setText(byId("waiting"), fault.message);
    }
  }
  if (mine === wanted) timer = setTimeout(refresh, REFRESH_MS);
}

function show(answer) {
  byId("waiting").hidden = true;
  byId("books").hidden = false;
  showSums(answer.total);
  showAxis(answer.edges_ms);
  keyed(byId("rows"), answer.rows, {
    key: (row) => row.key,
    make: () =>
      h("li", { class: "line" }, h("div", { class: "line-name" }, h("b"), h("small")), h("b", { class: "line-rate" }), h("span", { class: "line-why" }), strip()),
    patch: (line, row) => showRow(line, row, answer),
  });
  byId("none").hidden = answer.rows.length > 0;
  const rest = answer.row_count - answer.rows.length;
  byId("rest").hidden = rest <= 0;
  setText(byId("rest"), _("{n} more, all of them better than these", { n: count(rest) }));
  setText(byId("shown"), _("counted up to {time}", { time: moment(answer.known_ms, coreNow()) }));
}

function showSums(total) {
  setText(byId("rate"), percent(total.online_rate));
  setText(byId("share"), percent(total.completeness));
  const pending = total.gaps.pending ?? 0; // no share of what may still come
  const came = _("{got} of {due} expected", { got: count(total.got), due: count(total.due - pending) });
  setText(byId("samples"), pending ? `${came}, ${GAP.pending} ${count(pending)}` : came);
  const dark = Object.entries(total.dark).sort((one, other) => other[1] - one[1]);
  keyed(byId("reasons"), dark.length ? dark : [["", 0]], {
    key: ([reason]) => reason,
    make: ([reason]) => h("li", { class: `gap-${reason}` }, h("i"), h("span"), h("b")),
    patch: (item, [reason, minutes]) => {
      setText(item.children[1], reason ? (GAP[reason] ?? reason) : _("none: every point was there"));
      setText(item.children[2], reason ? count(minutes) : "");
    },
  });
  const roles = { judge: () => _("judged"), store: (name) => _("stored by {name}", { name }), forward: (name) => _("passed on by {name}", { name }) };
  setFacts(
    byId("consumers"),
    ["judge", "store", "forward"].flatMap((role) => total.consumers.filter((each) => each.role === role)).map((consumer) => {
      const rows = Object.values(consumer.missing).reduce((sum, n) => sum + n, consumer.has);
      const missing = Object.entries(consumer.missing).map(([reason, n]) => `${MISSING[reason] ?? reason} ${count(n)}`);
      const lost = Object.keys(consumer.missing).some((reason) => reason !== "pending" && reason !== "not_asked");
      const name = consumer.name.replace(/^sink\./, "");
      return [
        roles[consumer.role]?.(name) ?? consumer.role,
        [rows === consumer.has ? _("all {n}", { n: count(rows) }) : count(consumer.has), ...missing].join(" · "),
        lost ? "worry" : "",
      ];
    }),
  );
}

function showAxis(edges) {
  const long = edges.at(-1) - edges[0] > 36 * HOUR_MS;
  const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => edges[Math.round(share * (edges.length - 1))]);
  keyed(byId("axis"), marks.map((ms, place) => ({ ms, place })), {
    key: (mark) => mark.place,
    make: () => h("li"),
    patch: (item, mark) => setText(item, long ? `${day(mark.ms)} ${minute(mark.ms)}` : minute(mark.ms)),
  });
}

function showRow(line, row, answer) {
  const [name, rate, why, svg] = line.children;
  const title = row.name || (asked.by === "device" ? deviceOf(row.key)?.name : "") || row.key || _("not assigned");
  setText(name.firstChild, title);
  setText(name.lastChild, asked.by === "point" ? (title === row.key ? "" : row.key) : _("{n} points", { n: count(row.point_count) }));
  setText(rate, row.online_rate === null ? _("nothing expected") : percent(row.online_rate));
  const isGone = row.main_reason && goneMs(row, answer) > GONE_MS;
  setClass(rate, row.online_rate === null ? "line-rate muted" : isGone ? "line-rate worry" : "line-rate");
  setText(why, reasonOf(row, answer));
  drawStrip(svg, row.strip, answer.edges_ms);
  svg.setAttribute("aria-label", why.textContent || _("complete"));
}

/** How long before the end of what is counted it was seen last. */
function goneMs(row, answer) {
  if (row.last_online_ms === null) return Infinity;
  return Math.min(answer.known_ms, answer.to_ms) - row.last_online_ms - MINUTE_MS;
}

/** Since when it is gone, if it is, and what most of the missing is due to. */
function reasonOf(row, answer) {
  if (row.minutes_due === 0) return _("no interval is declared, so nothing can be missing");
  if (!row.main_reason) return "";
  const why = GAP[row.main_reason] ?? row.main_reason;
  if (row.last_online_ms === null) return _("{why}; not seen in all this time", { why });
  const gone = goneMs(row, answer);
  if (gone > GONE_MS) {
    return _("{why}; last seen {time}, {duration} ago", { why, time: moment(row.last_online_ms, coreNow()), duration: duration(gone) });
  }
  const dark = row.minutes_due - row.minutes_online;
  return dark ? _("{why}; back again, {n} min missed", { why, n: count(dark) }) : _("{why}; single samples missing", { why });
}

function percent(share) {
  if (share === null) return NONE;
  // Rounded down: what is not whole must not read as 100 %.
  return `${(Math.floor(share * 10000) / 100).toLocaleString("en", { minimumFractionDigits: share < 1 ? 2 : 0, maximumFractionDigits: 2 })} %`;
}

// ------------------------------------------------------------------ the strip

function strip() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "strip");
  svg.setAttribute("role", "img");
  svg.setAttribute("preserveAspectRatio", "none");
  return svg;
}

/** What was missing hangs from the top, in the colour of its reason; equal neighbours are one. */
function drawStrip(svg, bins, edges) {
  const drawn = JSON.stringify([bins, edges[0]]);
  if (svg.drawn === drawn) return;
  svg.drawn = drawn;
  svg.setAttribute("viewBox", `0 0 ${bins.length} ${HEIGHT}`);
  const parts = [];
  for (let first = 0; first < bins.length; ) {
    const [due, got, reason] = bins[first];
    const share = due ? (due - got) / due : null;
    let end = first + 1;
    while (end < bins.length && same(bins[end], reason, share)) end += 1;
    parts.push(...bar(first, end, { share, reason, title: titleOf(bins.slice(first, end), reason, [edges[first], edges[end]]) }));
    first = end;
  }
  svg.replaceChildren(...parts);
}

function same([due, got, reason], wantedReason, share) {
  return reason === wantedReason && (due ? (due - got) / due : null) === share;
}

function bar(first, end, { share, reason, title }) {
  if (share === null) return [rect(first, end, [0, HEIGHT], "strip-none", title)];
  const missing = share === 0 ? 0 : Math.max(SMALLEST, share * HEIGHT);
  const parts = [];
  if (missing < HEIGHT) parts.push(rect(first, end, [missing, HEIGHT - missing], "strip-good", title));
  if (missing) parts.push(rect(first, end, [0, missing], `gap-${reason}`, title));
  return parts;
}

function rect(first, end, [top, height], name, title) {
  const element = document.createElementNS(SVG, "rect");
  for (const [key, number] of Object.entries({ x: first, y: top, width: end - first, height })) {
    element.setAttribute(key, number);
  }
  element.setAttribute("class", name);
  const words = document.createElementNS(SVG, "title");
  words.textContent = title;
  element.append(words);
  return element;
}

function titleOf(bins, reason, [fromMs, toMs]) {
  const due = bins.reduce((sum, bin) => sum + bin[0], 0);
  const got = bins.reduce((sum, bin) => sum + bin[1], 0);
  const span = `${moment(fromMs, coreNow())} – ${moment(toMs, coreNow())}`;
  if (!due) return [span, _("nothing expected")].join(": ");
  const came = _("{got} of {due} expected", { got: count(got), due: count(due) });
  return reason ? `${span}: ${came}, ${GAP[reason] ?? reason}` : `${span}: ${came}`;
}

// ------------------------------------------------------------------ what is asked

for (const button of document.querySelectorAll(".ranges button")) {
  button.addEventListener("click", () => {
    asked.hours = Number(button.dataset.hours);
    for (const each of document.querySelectorAll(".ranges button")) {
      each.setAttribute("aria-pressed", String(each === button));
    }
    refresh();
  });
}

byId("filters").addEventListener("input", (event) => {
  const form = event.currentTarget;
  asked.by = form.elements.by.value;
  const text = form.elements.points.value.trim();
  asked.points = !text ? "*" : /[*?[]/.test(text) ? text : `*${text}*`;
  clearTimeout(timer);
  timer = setTimeout(refresh, 300); // while somebody is writing
});
byId("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  refresh();
});

refresh();
