/**
 * Making elements: tag, attributes, children. Text goes in as text, never as markup, so nothing that somebody typed can become
 * an element.
 */

type Child = Node | string | undefined;
type Value = string | number | boolean | undefined | ((event: never) => void);

/**
 * An element. An attribute that is `true` is set empty, `false` or undefined is left out; a function under `onclick` and the
 * like is called at that event.
 */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Readonly<Record<string, Value>> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value as EventListener);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children) if (child !== undefined) element.append(child);
  return element;
}

/** The drawings of the page, 24 by 24, as strokes. */
const STROKES = {
  up: "M6 14l6-6 6 6",
  down: "M6 10l6 6 6-6",
  remove: "M7 7l10 10M17 7L7 17",
  add: "M12 5v14M5 12h14",
  history: "M4 12a8 8 0 1 0 2.500-5.800M4 4v4h4M12 8v4l3 2",
  bytesIn: "M12 5v13M6 12l6 6 6-6",
  bytesOut: "M12 19V6M6 12l6-6 6 6",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16M12 8v4l3 2",
  eye: "M3 12s3.500-6 9-6 9 6 9 6-3.500 6-9 6-9-6-9-6M12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5",
  wave: "M4 9c3-3 5.500-3 8 0s5 3 8 0M4 16c3-3 5.500-3 8 0s5 3 8 0",
  grip: "M9 6h.010M15 6h.010M9 12h.010M15 12h.010M9 18h.010M15 18h.010",
} as const;

/** A drawing beside a word; it says nothing by itself. */
export function icon(name: keyof typeof STROKES): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", STROKES[name]);
  svg.append(path);
  return svg;
}

/** Sets the text only where it differs, so that a screen reader does not say it again. */
export function say(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
