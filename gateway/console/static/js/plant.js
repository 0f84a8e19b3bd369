// Points and devices, fetched when their version changes, joined with the newest values.

import { get } from "./api.js";
import { NONE, value } from "./i18n.js";
import { on } from "./live.js";

const NEVER_MS = -1;
let version = null;
let asking = false;
let points = [];
let devices = [];
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

/** Where a point is, in words; a location that already names its area is not said twice. */
export function placeOf(point) {
  if (!point.area || point.location.startsWith(point.area)) return point.location;
  return point.location ? `${point.area} · ${point.location}` : point.area;
}

/** A value as text: an enumerated code by its meaning. */
export function reading(point, sample) {
  if (!sample || sample.value === null) return NONE;
  if (point.kind === "discrete") return point.states[String(sample.value)] ?? value(sample.value);
  return value(sample.value, point.unit);
}
