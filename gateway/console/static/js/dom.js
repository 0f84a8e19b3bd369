// Building and patching elements. Cells are patched in place: a row keeps its focus and its place.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element. `properties`: class, dataset, on…, attributes; children: elements, text, null. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name, className = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon ${className}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function setIcon(svg, name) {
  const use = svg.firstElementChild;
  if (use.getAttribute("href") !== `#i-${name}`) use.setAttribute("href", `#i-${name}`);
}

/** Writes only what differs: the browser then repaints only that. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

/** Name and value pairs in a <dl>. `facts`: [name, text, class?]. */
export function setFacts(list, facts) {
  while (list.children.length > facts.length) list.lastElementChild.remove();
  while (list.children.length < facts.length) list.append(h("div", {}, h("dt"), h("dd")));
  facts.forEach(([name, text, className = ""], index) => {
    const [dt, dd] = list.children[index].children;
    setText(dt, name);
    setText(dd, text);
    setClass(dd, className);
  });
}

/**
 * Makes the children of `parent` those of `items`, in order, keeping the elements of known keys.
 * `make(item)` gives a new element, `patch(element, item)` brings it up to date.
 */
export function keyed(parent, items, { key, make, patch }) {
  parent.keyed ??= new Map();
  const rows = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const element = parent.keyed.get(name) ?? make(item);
    rows.set(name, element);
    patch(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const [name, element] of parent.keyed) if (!rows.has(name)) element.remove();
  parent.keyed = rows;
}
