// The words for codes that come over the wire. An unknown code is shown as it is.

import { _ } from "./i18n.js";

export const PRIORITY = { 1: _("Critical"), 2: _("High"), 3: _("Medium"), 4: _("Low") };

export const STATE = {
  UNACK: _("unacknowledged"),
  ACKED: _("acknowledged"),
  RTNUN: _("returned, unacknowledged"),
  LATCU: _("latched, unacknowledged"),
  LATCA: _("latched, acknowledged"),
  SHLVD: _("shelved"),
  DSUPR: _("suppressed"),
  OOSRV: _("out of service"),
  DISAB: _("disabled"),
  NORM: _("normal"),
};

export const TRANSITION = {
  ACT: _("activated"),
  RTN: _("returned to normal"),
  ESC: _("escalated"),
  DEESC: _("de-escalated"),
  ACK: _("acknowledged"),
  RST: _("reset"),
  SHV: _("shelved"),
  SH1: _("shelved once"),
  UNS: _("unshelved"),
  EXP: _("shelving expired"),
  SUP: _("suppressed"),
  UNP: _("suppression ended"),
  OOS: _("taken out of service"),
  RTS: _("returned to service"),
  REA: _("announced again"),
  DIS: _("disabled"),
  ENA: _("enabled"),
  CMT: _("commented"),
  HIST: _("found in late data"),
  CNF: _("action confirmed"),
  OVD: _("nobody has acknowledged"),
  EDT: _("rule edited"),
  REM: _("rule removed"),
};

const LEVEL = {
  OVER: _("too many people"),
  OFFLINE: _("no data"),
  blue: _("blue"),
  yellow: _("yellow"),
  orange: _("orange"),
  red: _("red"),
};

/** A level of a rule or of a law's colours. H, HH, L, LL are everybody's. */
export const level = (name) => LEVEL[name] ?? name;

/** What a rule stands on. Many standards carry their year in their number. */
export function sourceOf({ standard, edition, clause, confidence }) {
  if (!standard) return confidence === "site" ? _("rule of the site") : _("rule of the gateway");
  const year = !edition || standard.includes(edition) ? "" : `${/[0-9]$/.test(standard) ? "-" : " "}${edition}`;
  const place = /^[0-9.]+$/.test(clause) ? _("clause {clause}", { clause }) : clause;
  return [standard + year, place].filter(Boolean).join(" ");
}

/** Confidences that are marked on the screen: an operator must know what a limit rests on. */
export const UNSURE = {
  unconfirmed: _("source unconfirmed"),
  uncertain: _("source to be checked"),
  engineering: _("engineering value"),
};

export const GRADE = { good: _("good"), uncertain: _("uncertain"), bad: _("bad") };

const REASONS = {
  1: _("set by hand"),
  0x41: _("clock"),
  0x42: _("calibrating"),
  0x43: _("unknown state"),
  0x44: _("no position fix"),
  0x45: _("derived from uncertain"),
  0x81: _("no value"),
  0x82: _("not a number"),
  0x83: _("over range"),
  0x84: _("sensor fault"),
  0x85: _("communication"),
  0x86: _("not polled"),
  0x87: _("stale"),
  0x88: _("derived from bad"),
};

/** `old`: a good value nobody has sent again in time is good no longer. */
export function quality(code, old = false) {
  const grade = code < 0x40 ? "good" : code < 0x80 ? "uncertain" : "bad";
  if (old && grade === "good") return { grade: "uncertain", text: REASONS[0x87] };
  const reason = REASONS[code] ?? "";
  return { grade, text: reason ? `${GRADE[grade]} · ${reason}` : GRADE[grade] };
}

const CONDITION = {
  starting: _("starting"),
  listening: _("listening"),
  connected: _("connected"),
  connecting: _("connecting"),
  watching: _("watching"),
  running: _("running"),
  judging: _("judging"),
  counting: _("counting"),
  open: _("open"),
  ok: _("in order"),
  waiting: _("waiting"),
  faulty: _("faulty"),
  stopped: _("stopped"),
  refused: _("refused"),
  disconnected: _("disconnected"),
};
const WAITING = new Set(["waiting", "starting", "connecting"]);
const FAULTY = new Set(["faulty", "stopped", "refused", "disconnected", "failed", "error"]);

export function condition(state) {
  const mood = FAULTY.has(state) ? "faulty" : WAITING.has(state) ? "waiting" : "";
  return { mood, text: CONDITION[state] ?? state };
}

/** Why samples of a point are missing, as the ledger has it. */
export const GAP = {
  pending: _("not counted yet"),
  gateway_down: _("this gateway was not running"),
  clock: _("this gateway's clock was set"),
  lost_damage: _("lost to damage of the spool"),
  disk_down: _("this gateway's disk took nothing"),
  dropped_budget: _("refused, the spool was full"),
  thinned: _("thinned, the spool was nearly full"),
  adapter_down: _("the connection was down"),
  bad_quality: _("only bad values came"),
  late: _("came too late"),
  device_silent: _("the device was silent"),
};

/** Why a consumer has not a row that was received. */
export const MISSING = {
  pending: _("on its way"),
  lost_damage: _("lost to damage"),
  dropped_budget: _("dropped, the spool was full"),
  thinned: _("thinned"),
  rejected: _("refused, set aside"),
  not_asked: _("older than it"),
};
