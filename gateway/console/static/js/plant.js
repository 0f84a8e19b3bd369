// Points and devices, fetched when their version changes, joined with the newest values.

import { get } from "./api.js";
import { NONE, _, value } from "./i18n.js";
import { on } from "./live.js";

const NEVER_MS = -1;
const OLD_FACTOR = 3; // missed samples, and the floor, as pack system-health has them
const OLD_FLOOR_MS = 10_000;
const OLD_UNKNOWN_MS = 300_000; // of a point that never said how often it sends
let version = null;
let asking = false;
let points = [];
let devices = [];
let pointById = new Map();
let deviceById = new Map();
const pointListeners = [];
const valueListeners = [];

/** Calls `listener(points, devices)` whenever the plant has changed. */
export function onPlant(listener) {
  pointListeners.push(listener);
}

/** Calls `listener(sampleOf, frame)` once a second. */
export function onValues(listener) {
  valueListeners.push(listener);
}

on("values", async (frame) => {
  if (frame.points_version !== version && !asking) {
    asking = true;
    try {
      const plant = await get("/api/points");
      ({ points, devices, version } = plant);
      pointById = new Map(points.map((point) => [point.id, point]));
      deviceById = new Map(devices.map((device) => [device.id, device]));
      for (const listener of pointListeners) listener(points, devices);
    } catch {
      // The next frame asks again; what is known stays.
    } finally {
      asking = false;
    }
  }
  if (version === null) return;
  const sampleOf = (index) => {
    if (index >= frame.value.length) return null;
    const age = frame.age_ms[index];
    const none = age === NEVER_MS;
    return { value: frame.value[index], quality: frame.quality[index], none, ageMs: none ? null : age, timeMs: none ? null : frame.time_ms - age };
  };
  for (const listener of valueListeners) listener(sampleOf, frame);
});

/** Whether the points of the plant are here: until then nobody can say that one does not exist. */
export const isKnown = () => version !== null;
export const pointOf = (id) => pointById.get(id) ?? null;
export const deviceOf = (id) => deviceById.get(id) ?? null;

/** What people call a device or an area; "" for one that has only a number. */
function called(id) {
  const name = deviceById.get(id)?.name ?? "";
  return name === id ? "" : name;
}

/** What says nothing new beside the others is left out: 3101工作面 beside 3101工作面T1. */
function joined(parts) {
  const said = parts.filter((part, at) => part && !parts.some((other, j) => j !== at && other.includes(part) && (other !== part || j < at)));
  return said.join(" · ");
}

/** An area is given by its name or by the id of a device; one known only by its id is a last resort. */
const areaOf = (area) => called(area) || (deviceById.has(area) ? "" : area);

/** Where a point is, in words: area, location, or the vehicle or person that carries it. */
export function placeOf(point) {
  const carrier = called(point.device);
  return joined([areaOf(point.area), point.location, carrier === point.name ? "" : carrier]) || point.area;
}

/** What an alarm or an event is about, in words: area, place, vehicle, point. */
export function subjectOf(alarm) {
  const point = pointById.get(alarm.point_id || alarm.target);
  const carrier = called(alarm.target) || (point ? called(point.device) : "");
  const name = alarm.display_name || point?.name || "";
  const isId = name === alarm.target || name === alarm.point_id;
  return joined([areaOf(alarm.area ?? ""), areaOf(alarm.location), carrier, isId ? "" : name]) || alarm.area || alarm.target;
}

/** Whether the newest sample is too old to be called the present value. */
export function isOld(point, sample) {
  if (!sample || sample.none) return false;
  const allowed = point.interval_s ? Math.max(OLD_FLOOR_MS, OLD_FACTOR * 1000 * point.interval_s) : OLD_UNKNOWN_MS;
  return sample.ageMs > allowed;
}

/** A value as text: a code, an area, set bits by their meaning where it is known. */
export function reading(point, sample) {
  if (!sample || sample.value === null) return NONE;
  if (point.kind === "discrete") return point.states[String(sample.value)] ?? value(sample.value);
  if (point.kind === "area") return areaReading(sample.value);
  if (point.kind === "bits") return bitsReading(point, sample.value);
  return value(sample.value, point.unit);
}

function areaReading(index) {
  if (index < 0) return _("in no area");
  const area = devices[index];
  return area ? area.name || area.id : value(index);
}

function bitsReading(point, word) {
  if (!word) return _("none set");
  const said = [];
  for (let bit = 0, rest = word; rest >= 1; bit += 1, rest = Math.floor(rest / 2)) {
    if (rest % 2 >= 1) said.push(point.states[String(bit)] ?? _("bit {n}", { n: bit }));
  }
  return said.join(", ");
}
