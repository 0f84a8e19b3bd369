// Messages, times and numbers in the operator's language and the site's time zone.

const root = document.documentElement;
export const language = root.dataset.language;
// Plain "en" would write dates the American way round.
const locale = language === "en" ? "en-CA" : root.lang;
const messages = language === "en" ? {} : (await import(`/messages/${language}.js`)).default;

/** The message in the page's language; `{name}` is replaced by values.name. */
export function _(message, values = {}) {
  const text = messages[message] ?? message;
  return text.replace(/\{(\w+)\}/g, (_all, name) => String(values[name] ?? ""));
}

/** A text of the site or of a rule pack, which comes in several languages or in one. */
export function pick(texts, otherwise = "") {
  const short = language.split("_")[0];
  return texts[language] ?? texts[short] ?? texts.zh ?? texts.en ?? Object.values(texts)[0] ?? otherwise;
}

let zone = root.dataset.zone;
let formats = makeFormats();

function makeFormats() {
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  const day = { month: "2-digit", day: "2-digit" };
  const make = (options) => new Intl.DateTimeFormat(locale, { timeZone: zone, ...options });
  return {
    clock: make(clock),
    minute: make({ ...clock, second: undefined }),
    day: make(day),
    full: make({ year: "numeric", ...day, ...clock }),
    date: make({ year: "numeric", ...day }),
  };
}

export function setZone(name) {
  if (!name || name === zone) return;
  zone = name;
  formats = makeFormats();
}

export const timeZone = () => zone;
export const clock = (ms) => formats.clock.format(ms);
export const minute = (ms) => formats.minute.format(ms);
export const day = (ms) => formats.day.format(ms);
export const full = (ms) => formats.full.format(ms);

/** The clock time, with the day in front when it is not today's. */
export function moment(ms, nowMs) {
  const today = formats.date.format(ms) === formats.date.format(nowMs);
  return today ? clock(ms) : `${day(ms)} ${clock(ms)}`;
}

/** How long: the two largest units. */
export function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const [d, hours, minutes] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return _("{d} d {h} h", { d, h: hours });
  if (hours) return _("{h} h {m} min", { h: hours, m: minutes });
  if (minutes) return _("{m} min {s} s", { m: minutes, s: s % 60 });
  return _("{s} s", { s });
}

const plain = new Intl.NumberFormat(locale, { maximumFractionDigits: 3 });
const fine = new Intl.NumberFormat(locale, { maximumFractionDigits: 6, useGrouping: false });
const small = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });

export const NONE = "—";

/** A measured value. A value too small for three decimals keeps three digits. */
export function value(number, unit = "") {
  if (number === null || number === undefined) return NONE;
  if (unit === "°") return fine.format(number);
  if (number !== 0 && Math.abs(number) < 0.001) return small.format(number);
  return plain.format(number);
}

const UNITS = { 人: _("people"), bits: "" };

/** A unit as the operator reads it; most are the same in every language. */
export const unitText = (unit) => UNITS[unit] ?? unit;

export const count = (number) => whole.format(number);

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (number >= 1024 && step < units.length - 1) {
    number /= 1024;
    step += 1;
  }
  return `${small.format(number)} ${units[step]}`;
}
