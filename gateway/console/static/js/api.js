// Questions and commands to the JSON API. Every failure becomes an Error with a text to show.

import { _ } from "./i18n.js";

export async function get(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return answer(fetch(query ? `${path}?${query}` : path));
}

export async function post(path, body) {
  return answer(
    fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    }),
  );
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error(_("The gateway does not answer."));
  }
  const said = await response.json().catch(() => ({}));
  if (response.ok) return said;
  if (said.code === "stale") {
    throw new Error(_("Not acknowledged: the alarm has changed since you saw it. Look again."));
  }
  if (response.status === 503) throw new Error(_("No link to the core: nothing was changed."));
  const detail = typeof said.detail === "string" ? said.detail : "";
  throw new Error(_("Refused: {detail}", { detail: detail || response.status }));
}
