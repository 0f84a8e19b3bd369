// The trend of one point: stored buckets (mean between lowest and highest), then live samples behind.

import { get } from "./api.js";
import { byId, setClass, setFacts, setText } from "./dom.js";
import { NONE, _, clock, count, day, minute, timeZone, unitText, value } from "./i18n.js";
import * as live from "./live.js";
import { isOld, placeOf, reading } from "./plant.js";
import { quality } from "./words.js";

const BUCKETS = 600;
const APPENDED_MAX = 4000;
const HEIGHT = 320;
const COLOURS = { mean: "#4aa8ff", band: "#4aa8ff2e", grid: "#222d37", text: "#9fb0bf", limit: "#ff5a57" };

export class Trend {
  constructor(closed) {
    this.point = null;
    this.minutes = Number(localStorage.getItem("trend-minutes")) || 60;
    this.box = byId("trend");
    this.closed = closed;
    this.asked = 0;
    this.columns = [[], [], [], []]; // time s, mean, lowest, highest
    this.limit = null;
    byId("trend-close").addEventListener("click", () => this.close());
    for (const button of this.box.querySelectorAll("[data-minutes]")) {
      button.addEventListener("click", () => {
        this.minutes = Number(button.dataset.minutes);
        localStorage.setItem("trend-minutes", String(this.minutes));
        this.load();
      });
    }
    new ResizeObserver(() => this.fit()).observe(byId("chart"));
  }

  open(point, sample = null, alarm = null) {
    this.point = point;
    this.box.hidden = false;
    setText(this.box.querySelector("h2"), point.name || point.id);
    setText(this.box.querySelector("header p"), [placeOf(point), point.id].filter(Boolean).join(" · "));
    this.now(sample, alarm);
    this.load();
  }

  close() {
    if (!this.point) return;
    this.point = null;
    this.box.hidden = true;
    this.plot?.destroy();
    this.plot = null;
    this.closed();
  }

  now(sample, alarm) {
    const point = this.point;
    setText(this.box.querySelector(".trend-now b"), reading(point, sample));
    setText(this.box.querySelector(".trend-now .unit"), unitText(point.unit));
    const said = sample && !sample.none ? quality(sample.quality, isOld(point, sample)) : { grade: "bad", text: _("no sample yet") };
    const badge = this.box.querySelector(".trend-quality");
    setText(badge, said.text);
    setClass(badge, `trend-quality quality ${said.grade}`);
    this.limit = alarm?.limit ?? null;
  }

  async load() {
    const asked = ++this.asked;
    const point = this.point;
    for (const button of this.box.querySelectorAll("[data-minutes]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.minutes) === this.minutes));
    }
    const to = Math.ceil(live.coreNow());
    const note = this.box.querySelector(".trend-note");
    setText(note, _("Reading the history …"));
    try {
      const found = await get("/api/history", { point_id: point.id, from_ms: to - this.minutes * 60_000, to_ms: to, count: BUCKETS });
      if (asked !== this.asked || this.point !== point) return;
      this.columns = [found.time_ms.map((ms) => ms / 1000), found.mean, found.minimum, found.maximum];
      const samples = found.count.reduce((sum, n) => sum + n, 0);
      setText(note, samples ? _("{n} stored samples", { n: count(samples) }) : _("Nothing stored in this span."));
    } catch (fault) {
      if (asked !== this.asked) return;
      this.columns = [[], [], [], []];
      setText(note, _("No history: {detail}", { detail: fault.message }));
    }
    this.draw();
  }

  append(sample, alarm) {
    if (!sample) return;
    this.now(sample, alarm);
    const [times, ...series] = this.columns;
    const at = sample.timeMs / 1000;
    if (sample.none || sample.value === null || sample.quality >= 0x80) return;
    if (times.length && at <= times[times.length - 1]) return;
    times.push(at);
    for (const column of series) column.push(sample.value);
    while (times.length > APPENDED_MAX || times[0] < at - this.minutes * 60) {
      for (const column of this.columns) column.shift();
    }
    if (this.plot) {
      this.plot.setData(this.columns);
      this.facts();
    } else this.draw();
  }

  draw() {
    this.plot?.destroy();
    this.plot = new uPlot(this.options(), this.columns, byId("chart"));
    byId("chart").dataset.points = String(this.columns[0].length);
    this.facts();
  }

  fit() {
    if (this.plot) this.plot.setSize({ width: byId("chart").clientWidth, height: HEIGHT });
  }

  facts() {
    byId("chart").dataset.points = String(this.columns[0].length);
    const ends = (column, pick) => {
      const numbers = column.filter((n) => n !== null);
      return numbers.length ? numbers.reduce((a, b) => pick(a, b)) : null;
    };
    const unit = unitText(this.point.unit);
    const text = (number) => (number === null ? NONE : `${value(number, this.point.unit)} ${unit}`);
    const range = [this.point.range_low, this.point.range_high];
    setFacts(byId("trend-facts"), [
      [_("lowest"), text(ends(this.columns[2], Math.min))],
      [_("highest"), text(ends(this.columns[3], Math.max))],
      [_("measuring range"), range[1] === null ? NONE : `${value(range[0] ?? 0)} … ${value(range[1])} ${unit}`],
      [_("limit of the standing alarm"), text(this.limit)],
    ]);
  }

  options() {
    const axis = { stroke: COLOURS.text, grid: { stroke: COLOURS.grid, width: 1 }, ticks: { stroke: COLOURS.grid, width: 1 }, font: "13px system-ui, 'Noto Sans CJK SC', sans-serif" };
    const long = this.minutes > 1440;
    const label = (seconds, _index, all) => {
      if (long) return `${day(seconds * 1000)} ${minute(seconds * 1000)}`;
      // A span that has only just begun: two ticks in one minute would read the same.
      return all.length > 1 && all[1] - all[0] < 60 ? clock(seconds * 1000) : minute(seconds * 1000);
    };
    const hair = { width: 1, points: { show: false }, stroke: "transparent" };
    return {
      width: byId("chart").clientWidth,
      height: HEIGHT,
      cursor: { y: false, points: { size: 7 } },
      legend: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), timeZone()),
      scales: { x: { time: true }, y: { range: (_plot, low, high) => this.span(low, high) } },
      axes: [
        { ...axis, space: long ? 110 : 80, values: (_plot, splits) => splits.map(label) },
        { ...axis, size: 64, values: (_plot, splits) => splits.map((n) => value(n, this.point.unit)) },
      ],
      series: [
        {},
        { stroke: COLOURS.mean, width: 2, points: { show: false } },
        hair,
        hair,
      ],
      bands: [{ series: [3, 2], fill: COLOURS.band }],
      hooks: { draw: [(plot) => this.drawLimit(plot)] },
    };
  }

  /** The limit of a standing alarm is always in sight; a flat line stands in the middle. */
  span(low, high) {
    if (low === null || high === null) return [0, 1];
    if (this.limit !== null) [low, high] = [Math.min(low, this.limit), Math.max(high, this.limit)];
    const pad = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
    return [low - pad, high + pad];
  }

  drawLimit(plot) {
    if (this.limit === null) return;
    const y = Math.round(plot.valToPos(this.limit, "y", true));
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = COLOURS.limit;
    ctx.setLineDash([8, 6]);
    ctx.lineWidth = 2;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }
}
