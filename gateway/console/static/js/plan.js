// The plan: vehicles as circles on a plain grid, places as boxes. No tile is loaded from anywhere.

import { byId, h, keyed, setClass, setText } from "./dom.js";
import { NONE, _, count, moment, value } from "./i18n.js";
import * as live from "./live.js";
import { onPlant, onValues } from "./plant.js";
import "./shell.js";

const STALE_MS = 120_000;
const MOVING_KMH = 3; // below it a receiver's noise looks like driving
const LABELS_MAX = 40;
const LABELS_WIDTH = 700; // on a phone the list below names them, until zoomed in
const LABELS_ZOOM = 16;
const COLOURS = { moving: "#6fcf97", parked: "#7cc4ff", unsure: "#7d8b98", alarm: "#ff5a57", place: "#d0a85c", trail: "#5d7f9c", edge: "#0d1217" };
const TRAIL_MAX = 120; // positions seen while the page is open
const FIT_ZOOM_MAX = 16; // three trucks at one gate need no closer look
const HALF_BOX = 0.0011; // degrees: about 100 m, a place's extent is not known

let vehicles = []; // {device, lon, lat, speed}: point indices
let standing = []; // alarms in sight
let follow = true; // keep every vehicle in view, until the operator moves the map
let fitting = false;
const markers = new Map();
const places = [];
let pointDevice = new Map();
let inner = null; // the part of the map no vehicle may leave while it follows them

const map = L.map("map", { preferCanvas: true, zoomControl: false, attributionControl: false, center: [35, 105], zoom: 4, minZoom: 3, maxZoom: 19 });
L.control.zoom({ position: "topright", zoomInTitle: _("zoom in"), zoomOutTitle: _("zoom out") }).addTo(map);
L.control.scale({ imperial: false, position: "bottomleft" }).addTo(map);
const renderer = L.canvas({ padding: 0.3 });

const Grid = L.GridLayer.extend({
  createTile() {
    const tile = document.createElement("canvas");
    const size = this.getTileSize();
    [tile.width, tile.height] = [size.x, size.y];
    const ctx = tile.getContext("2d");
    ctx.strokeStyle = "#1a242d";
    for (let at = 0; at < size.x; at += 64) {
      ctx.strokeStyle = at === 0 ? "#243240" : "#18212a";
      ctx.beginPath();
      ctx.moveTo(at + 0.5, 0);
      ctx.lineTo(at + 0.5, size.y);
      ctx.moveTo(0, at + 0.5);
      ctx.lineTo(size.x, at + 0.5);
      ctx.stroke();
    }
    return tile;
  },
});
new Grid({ tileSize: 256 }).addTo(map);

onPlant((points, devices) => {
  const byDevice = new Map();
  pointDevice = new Map(points.map((point) => [point.id, point.device]));
  for (const point of points) {
    if (!byDevice.has(point.device)) byDevice.set(point.device, {});
    byDevice.get(point.device)[point.kind] = point.index;
  }
  vehicles = devices
    .map((device) => ({ device, ...byDevice.get(device.id) }))
    .filter((vehicle) => vehicle.lon !== undefined && vehicle.lat !== undefined);
  showPlaces(devices);
});

function showPlaces(devices) {
  for (const place of places.splice(0)) place.remove();
  for (const device of devices) {
    const at = [Number(device.attributes.lat), Number(device.attributes.lon)];
    if (!device.attributes.lat || !at.every(Number.isFinite)) continue;
    const box = L.rectangle(
      [[at[0] - HALF_BOX, at[1] - HALF_BOX], [at[0] + HALF_BOX, at[1] + HALF_BOX]],
      { renderer, color: COLOURS.place, weight: 2, fillOpacity: 0.12 },
    );
    box.bindTooltip(h("span", {}, device.name || device.id), { permanent: true, direction: "top", className: "place-tip" });
    places.push(box.addTo(map));
    box.openTooltip([at[0] + HALF_BOX, at[1]]);
  }
}

live.on("alarms", (frame) => {
  standing = frame.alarms.filter((alarm) => !alarm.hidden);
});

/** Devices with a standing alarm of their own or of one of their points. Asked anew each time: the
    alarms may come before the points are known. */
function alarmedDevices() {
  return new Set(standing.flatMap((alarm) => [alarm.target, pointDevice.get(alarm.point_id || alarm.target)]));
}

onValues((sampleOf, frame) => {
  const alarmed = alarmedDevices();
  const seen = vehicles.map((vehicle) => picture(vehicle, sampleOf, alarmed)).filter((v) => v.at);
  byId("waiting").hidden = seen.length > 0;
  setText(byId("vehicle-count"), count(seen.length));
  for (const [id, marker] of markers) {
    if (!seen.some((v) => v.device.id === id)) {
      marker.trail.remove();
      marker.remove();
      markers.delete(id);
    }
  }
  const roomy = map.getSize().x >= LABELS_WIDTH || map.getZoom() >= LABELS_ZOOM;
  seen.forEach((vehicle) => mark(vehicle, roomy && seen.length <= LABELS_MAX));
  seen.sort((a, b) => b.alarm - a.alarm || a.name.localeCompare(b.name));
  keyed(byId("vehicles"), seen, { key: (v) => v.device.id, make: makeRow, patch: (row, v) => patchRow(row, v, frame) });
  byId("map").dataset.markers = String(markers.size);
  if (follow && seen.some((v) => !v.inView)) fit(seen);
  byId("fit").hidden = follow || !seen.length;
});

function fit(seen) {
  const bounds = L.latLngBounds(seen.map((v) => v.at));
  for (const place of places) bounds.extend(place.getBounds());
  fitting = true;
  map.fitBounds(bounds.pad(0.25), { animate: false, maxZoom: FIT_ZOOM_MAX });
  fitting = false;
  inner = map.getBounds().pad(-0.04);
}

// Whoever moves the map wants to look there: it stays until all vehicles are asked for again.
map.on("movestart zoomstart", () => {
  if (!fitting) follow = false;
});
byId("fit").addEventListener("click", () => {
  follow = true;
  inner = null;
  byId("fit").hidden = true;
});

function picture(vehicle, sampleOf, alarmed) {
  const [lon, lat, speed] = [vehicle.lon, vehicle.lat, vehicle.speed].map((i) => (i === undefined ? null : sampleOf(i)));
  const known = lon && lat && lon.value !== null && lat.value !== null;
  const unsure = known && (lon.quality >= 0x40 || lat.quality >= 0x40 || lon.ageMs > STALE_MS);
  const alarm = alarmed.has(vehicle.device.id);
  const mood = unsure ? "unsure" : (speed?.value ?? 0) >= MOVING_KMH ? "moving" : "parked";
  return { device: vehicle.device, name: vehicle.device.name || vehicle.device.id, at: known ? [lat.value, lon.value] : null, inView: known && inner !== null && inner.contains([lat.value, lon.value]), timeMs: lon?.timeMs, speed, alarm, mood };
}

function mark(vehicle, labelled) {
  const style = { renderer, radius: vehicle.alarm ? 9 : 7, weight: vehicle.alarm ? 4 : 2, color: vehicle.alarm ? COLOURS.alarm : COLOURS.edge, fillColor: COLOURS[vehicle.mood], fillOpacity: 1 };
  let marker = markers.get(vehicle.device.id);
  if (!marker) {
    marker = L.circleMarker(vehicle.at, style).addTo(map);
    marker.label = h("span"); // an element: Leaflet takes a text for HTML, and plates come from outside
    marker.trail = L.polyline([vehicle.at], { renderer, color: COLOURS.trail, weight: 2, opacity: 0.7, interactive: false }).addTo(map);
    markers.set(vehicle.device.id, marker);
  }
  draw(marker.trail, vehicle.at);
  marker.setLatLng(vehicle.at).setStyle(style).setRadius(style.radius);
  const wanted = `${vehicle.alarm ? "a" : ""}${labelled ? "l" : ""}`;
  const label = [vehicle.name, vehicle.speed?.value == null ? "" : speedText(vehicle)].filter(Boolean).join("  ");
  setText(marker.label, label);
  if (marker.tip === wanted) return;
  marker.tip = wanted;
  marker.unbindTooltip();
  marker.bindTooltip(marker.label, { permanent: labelled || vehicle.alarm, direction: "right", offset: [8, 0], className: vehicle.alarm ? "alarm-tip" : "" });
}

const speedText = (vehicle) => `${value(Math.round(vehicle.speed.value))} km/h`;

/** The way it came while this page was open. */
function draw(trail, at) {
  const way = trail.getLatLngs();
  const last = way[way.length - 1];
  if (last.lat === at[0] && last.lng === at[1]) return;
  trail.setLatLngs([...way.slice(1 - TRAIL_MAX), at]);
}

function makeRow(vehicle) {
  const row = h("li", { tabindex: "0" }, h("i", { class: "dot" }), h("b", {}, vehicle.name), h("span"), h("small"));
  const go = () => map.setView(row.at, Math.max(map.getZoom(), 15), { animate: false });
  row.addEventListener("click", go);
  row.addEventListener("keydown", (event) => event.key === "Enter" && go());
  return row;
}

function patchRow(row, vehicle, frame) {
  row.at = vehicle.at;
  const [dot, , speed, note] = row.children;
  setClass(dot, `dot ${vehicle.alarm ? "alarmed" : vehicle.mood}`);
  setText(speed, vehicle.speed?.value == null ? NONE : speedText(vehicle));
  const words = { moving: _("moving"), parked: _("standing still"), unsure: _("no fix or stale") };
  const parts = [words[vehicle.mood], vehicle.alarm ? _("in alarm") : "", vehicle.timeMs ? moment(vehicle.timeMs, frame.time_ms) : "", vehicle.device.attributes.cargo ?? ""];
  setText(note, parts.filter(Boolean).join(" · "));
}
