/** What `npm ci` has put beside this file. */
import { readFileSync } from "node:fs";

/** A file of a package. */
export function fileOf(name, path) {
  return new URL(`./node_modules/${name}/${path}`, import.meta.url).pathname;
}

/** Names with versions. */
export function installed(...names) {
  return names.map((name) => `${name} ${JSON.parse(readFileSync(fileOf(name, "package.json"), "utf8")).version}`);
}
