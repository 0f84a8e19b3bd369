// The state of the core: the road of a sample, adapters, spool, sinks, rules. Once a second.

import { byId, h, keyed, setClass, setFacts, setText } from "./dom.js";
import { NONE, _, bytes, count, duration, full, moment, value } from "./i18n.js";
import { on } from "./live.js";
import { siteName } from "./shell.js";
import { condition } from "./words.js";

const BEHIND_WORRY = 5000; // samples: far more than one poll of any site
const SILENT_MS = 60_000;
const CURSORS = { judge: _("judging"), ledger: _("the ledger") };

on("status", (status) => {
  byId("waiting").hidden = true;
  byId("system").hidden = false;
  showRoad(status);
  showCore(status);
  showSpool(status);
  showRules(status.rules);
  showRows("adapters", status.adapters, (row) => adapterCells(row, status.time_ms));
  showRows("sinks", status.sinks, (row) => sinkCells(row, status.time_ms));
});

function showRoad({ road, rate_per_s: rate }) {
  const steps = [
    [_("received"), road.received, "", ""],
    [_("durable"), road.durable, "", road.derived ? _("with {n} calculated", { n: count(road.derived) }) : ""],
    [_("judged"), road.judged, "", ""],
    [_("stored"), road.stored, "end", ""],
    [_("rejected, set aside"), road.rejected, "end", ""],
    [_("lost"), road.lost, "end", ""],
  ];
  keyed(byId("road"), steps, {
    key: (step) => step[0],
    make: (step) => h("li", { class: step[2] }, h("b"), h("span", {}, step[0]), h("small")),
    patch: (item, [name, number, , note]) => {
      setText(item.lastChild, note);
      setText(item.firstChild, count(number));
      setClass(item.firstChild, number && name === _("lost") ? "alarm-text" : "");
    },
  });
  setText(byId("h-road"), _("The road of a sample: {rate} a second", { rate: value(rate) }));
}

function showCore(status) {
  const { latency } = status;
  const time = (ms) => (ms === null ? NONE : `${value(Math.round(ms))} ms`);
  setFacts(byId("core"), [
    [_("site"), [siteName(status), status.site].filter(Boolean).join(" · ")],
    [_("version"), status.version],
    [_("running for"), duration(status.time_ms - status.started_ms)],
    [_("started"), full(status.started_ms)],
    [_("process, memory"), `${status.pid} · ${bytes(status.rss_bytes)}`],
    ...(status.cpu_percent === null ? [] : [[_("processor"), `${value(status.cpu_percent)} %`]]),
    [_("points, devices"), `${count(status.point_count)} · ${count(status.device_count)}`],
    [_("sample to alarm, median"), time(latency.p50_ms)],
    [_("99 of 100, longest"), `${time(latency.p99_ms)} · ${time(latency.max_ms)}`],
  ]);
}

function showSpool({ spool, time_ms: now }) {
  byId("spool-meter").value = spool.size_bytes_max ? spool.size_bytes / spool.size_bytes_max : 0;
  const state = condition(spool.state);
  const moods = { faulty: "alarm-text", waiting: "worry", "": "" };
  setFacts(byId("spool"), [
    [_("state"), [state.text, spool.detail].filter(Boolean).join(": "), moods[state.mood]],
    [_("used"), `${bytes(spool.size_bytes)} / ${bytes(spool.size_bytes_max)}`],
    [_("durable within"), spool.commit_window_ms ? `${value(spool.commit_window_ms)} ms` : _("at once, in groups")],
    ...(spool.oldest_ms === null ? [] : [[_("oldest record"), _("{duration} ago", { duration: duration(now - spool.oldest_ms) })]]),
    [_("segments"), count(spool.segment_count)],
    [_("quarantined"), count(spool.quarantined_count), spool.quarantined_count ? "worry" : ""],
    [_("dropped by budget"), count(spool.dropped_count), spool.dropped_count ? "alarm-text" : ""],
    ...spool.cursors.map((cursor) => [
      _("{name} is behind by", { name: CURSORS[cursor.name] ?? cursor.name.replace(/^sink\./, "") }),
      count(cursor.behind_records),
      cursor.behind_records > BEHIND_WORRY ? "worry" : "",
    ]),
  ]);
}

function showRules(rules) {
  setFacts(byId("rules"), [
    [_("rules"), count(rules.rule_count)],
    [_("rule instances"), count(rules.instance_count)],
    [_("source not confirmed"), count(rules.unconfirmed_count), rules.unconfirmed_count ? "worry" : ""],
    ...(rules.fingerprint ? [[_("fingerprint"), rules.fingerprint]] : []),
    ...(rules.reloaded ? [[_("site file read again"), rules.reloaded, rules.is_reload_refused ? "worry" : ""]] : []),
  ]);
  keyed(byId("packs"), rules.packs, {
    key: (pack) => pack.name,
    make: () => h("li", {}, h("span"), h("span", { class: "muted" })),
    patch: (item, pack) => {
      setText(item.firstChild, [pack.name, pack.edition].filter(Boolean).join(" · "));
      const unsure = pack.unconfirmed_count ? _(", {n} unconfirmed", { n: pack.unconfirmed_count }) : "";
      setText(item.lastChild, _("{n} rules", { n: pack.rule_count }) + unsure);
    },
  });
}

function adapterCells(row, now) {
  const silent = row.last_sample_ms !== null && now - row.last_sample_ms > SILENT_MS;
  return [
    { text: row.name, note: row.kind },
    stateCell(row, now),
    { text: count(row.point_count) },
    { text: value(row.rate_per_s) },
    { text: row.last_sample_ms === null ? NONE : moment(row.last_sample_ms, now), class: silent ? "old" : "" },
    { text: count(row.counts.received) },
    { text: count(row.counts.rejected), class: row.counts.rejected ? "worry" : "" },
    { text: count(row.counts.dropped), class: row.counts.dropped ? "worry" : "" },
  ];
}

function sinkCells(row, now) {
  return [
    { text: row.name, note: row.kind },
    stateCell(row, now),
    { text: count(row.behind_records), class: row.behind_records > BEHIND_WORRY ? "worry" : "" },
    { text: row.last_write_ms === null ? NONE : moment(row.last_write_ms, now) },
    { text: count(row.counts.accepted) },
    { text: count(row.counts.rejected), class: row.counts.rejected ? "worry" : "" },
  ];
}

function stateCell(row, now) {
  const { mood, text } = condition(row.state);
  const since = row.since_ms === null ? "" : _("for {duration}", { duration: duration(now - row.since_ms) });
  return { text, mood, note: [since, row.detail].filter(Boolean).join(" · ") };
}

function showRows(id, rows, cells) {
  const heads = [...byId(id).closest("table").querySelectorAll("th")];
  keyed(byId(id), rows, {
    key: (row) => row.name,
    make: (row) =>
      h("tr", {}, ...cells(row).map((cell, index) => {
        const inner = cell.mood === undefined ? [h("span")] : [h("span", { class: "cond" }, h("i"), h("span"))];
        const box = h("div", {}, ...inner, cell.note === undefined ? null : h("small"));
        return h("td", { class: heads[index].className, dataset: { head: heads[index].textContent } }, box);
      })),
    patch: (element, row) => {
      cells(row).forEach((cell, index) => {
        const td = element.children[index];
        const box = td.firstChild;
        const target = cell.mood === undefined ? box.firstChild : box.firstChild.lastChild;
        setText(target, cell.text);
        if (cell.mood !== undefined) setClass(box.firstChild, `cond ${cell.mood}`);
        else setClass(target, cell.class ?? "");
        if (cell.note !== undefined) setText(box.lastChild, cell.note);
      });
    },
  });
}
