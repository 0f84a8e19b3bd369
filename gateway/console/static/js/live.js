// The socket: newest frame of each topic to whoever asked for it, and how old the data is.
//
// What counts is the age of the core's last values, told by the web process every second; a socket
// that looks open proves nothing. No reconnect reloads the page, and nothing shown is thrown away.

const STALE_MS = 5000;
const RETRY_MS = [1000, 3000]; // with jitter: twenty walls must not come back in one instant
const SILENT_MS = 8000; // the server speaks every second; a silent socket is dead: open another

const listeners = new Map();
const ageListeners = [];
const newest = new Map();
let socket = null;
let heardAt = -Infinity; // when anything came, by performance.now()
let freshAt = -Infinity; // when the core's last values left it, on the same clock
let told = { connected: false, age_ms: null, detail: "" };
let wasStale = null;

/** Calls `listener(data)` with every frame of the topic, and with the newest one at once. */
export function on(topic, listener) {
  if (!listeners.has(topic)) listeners.set(topic, []);
  listeners.get(topic).push(listener);
  if (newest.has(topic)) listener(newest.get(topic));
}

/** Calls `listener({stale, first, web, core})` every second and whenever it changes. */
export function onAge(listener) {
  ageListeners.push(listener);
  listener(age());
}

/** The core's clock now, as well as it is known. */
export function coreNow() {
  const values = newest.get("values");
  if (!values) return Date.now();
  return values.time_ms + (performance.now() - values.arrivedAt);
}

export function age() {
  const now = performance.now();
  return {
    stale: now - freshAt > STALE_MS,
    never: freshAt === -Infinity,
    web: now - heardAt <= STALE_MS,
    core: told.connected,
    lastMs: newest.get("values")?.time_ms ?? null,
  };
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = new WebSocket(`${scheme}://${location.host}/ws`);
  socket = mine;
  mine.onmessage = (message) => {
    if (socket === mine) take(JSON.parse(message.data));
  };
  mine.onclose = () => {
    if (socket === mine) retry();
  };
}

function retry() {
  socket = null;
  setTimeout(connect, RETRY_MS[0] + Math.random() * (RETRY_MS[1] - RETRY_MS[0]));
}

function take({ topic, data }) {
  heardAt = performance.now();
  if (topic === "link") {
    told = data;
    if (data.age_ms !== null) freshAt = heardAt - data.age_ms;
    tellAge();
    return;
  }
  data.arrivedAt = heardAt;
  newest.set(topic, data);
  for (const listener of listeners.get(topic) ?? []) listener(data);
}

function tellAge() {
  const now = age();
  if (wasStale !== now.stale) {
    wasStale = now.stale;
    document.body.classList.toggle("stale", now.stale && !now.never);
  }
  for (const listener of ageListeners) listener(now);
}

setInterval(() => {
  if (socket && socket.readyState === WebSocket.OPEN && performance.now() - heardAt > SILENT_MS) {
    const dead = socket;
    retry();
    dead.close();
  }
  tellAge();
}, 500);
connect();
