// The horn: two tones for P1, one for P2, every two seconds until acknowledged or silenced.
//
// A browser makes no sound before a person has touched the page. So the state shown is what the
// audio really does: "sound on" only while it runs. Silence is this screen's own affair and ends
// with the next new alarm; it acknowledges nothing.

const EVERY_MS = 2000;
const TONES = { 1: [880, 660, 880, 660], 2: [660, 660] };

let context = null;
let timer = null;
let listener = () => {};
export const wanted = () => localStorage.getItem("sound") === "on";
export const running = () => context !== null && context.state === "running";

export function onChange(callback) {
  listener = callback;
}

export async function arm() {
  localStorage.setItem("sound", "on");
  await start();
}

export function disarm() {
  localStorage.setItem("sound", "off");
  context?.suspend().then(listener);
}

async function start() {
  if (!context) {
    context = new AudioContext();
    context.onstatechange = () => listener();
  }
  await context.resume();
  listener();
}

// Sound chosen on an earlier page: the first touch of this one brings it back.
for (const event of ["pointerdown", "keydown"]) {
  addEventListener(event, () => {
    if (wanted() && !running()) start();
  });
}

/** Sound the horn for this priority until it changes; 0 is silence. */
export function sound(priority) {
  if (timer?.priority === priority) return;
  if (timer) clearInterval(timer.id);
  timer = null;
  if (!priority || !TONES[priority]) return;
  blow(TONES[priority]);
  timer = { priority, id: setInterval(() => blow(TONES[priority]), EVERY_MS) };
}

function blow(tones) {
  if (!running()) return;
  tones.forEach((frequency, index) => {
    const from = context.currentTime + index * 0.22;
    const [tone, gain] = [context.createOscillator(), context.createGain()];
    tone.type = "triangle";
    tone.frequency.value = frequency;
    gain.gain.setValueAtTime(0.0001, from);
    gain.gain.exponentialRampToValueAtTime(0.5, from + 0.02);
    gain.gain.exponentialRampToValueAtTime(0.0001, from + 0.2);
    tone.connect(gain).connect(context.destination);
    tone.start(from);
    tone.stop(from + 0.21);
  });
}
