/**
 * The service worker: keeps the files of the page, so that it opens without a network too. Documents are none of its business;
 * the client keeps them. Files whose names carry a hash come from what is kept; the page itself from the server, as long as it
 * answers. A window that still shows the version before has its files until it is loaded anew, or until the version after this one:
 * the server does not have them any more.
 */

/** The build puts both in front of this file. */
declare const PAGE_FILES: readonly string[];
declare const PAGE_VERSION: string;

/** The part of a service worker's scope that is used here. */
interface WorkerScope {
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(type: "install" | "activate", handler: (event: LifeEvent) => void): void;
  addEventListener(type: "fetch", handler: (event: FetchEvent) => void): void;
}
interface LifeEvent extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface FetchEvent extends Event {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}

/** A server that does not answer in this time is taken for away. */
const PATIENCE_MS = 4000;

const scope = self as unknown as WorkerScope;
const root = scope.registration.scope;
const PREFIX = "syncline-page-";
const kept = `${PREFIX}${PAGE_VERSION}`;
const addresses = new Set(PAGE_FILES.map((file) => new URL(file, root).href));

scope.addEventListener("install", (event) => {
  event.waitUntil(keepFiles().then(() => scope.skipWaiting()));
});

scope.addEventListener("activate", (event) => {
  event.waitUntil(dropFormer().then(() => scope.clients.claim()));
});

scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const address = request.url.split(/[?#]/)[0] ?? "";
  if (request.method !== "GET" || !(addresses.has(address) || address.startsWith(`${root}assets/`))) return;
  event.respondWith(address === root ? page(request) : file(address, request));
});

async function keepFiles(): Promise<void> {
  const cache = await caches.open(kept);
  await cache.addAll([...addresses].map((address) => new Request(address, { cache: "no-cache" })));
}

/** Of the former versions the last one stays. */
async function dropFormer(): Promise<void> {
  const names = await caches.keys();
  const former = names.filter((name) => name.startsWith(PREFIX) && name !== kept);
  await Promise.all(former.slice(0, -1).map((name) => caches.delete(name)));
}

async function page(request: Request): Promise<Response> {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(request, { signal: patience.signal });
    if (answer.ok) return answer;
  } catch {
    // The server is away: what is kept is what there is.
  } finally {
    clearTimeout(timer);
  }
  return file(root, request);
}

/** This version's file goes before one of the same name that was kept by the version before. */
async function file(address: string, request: Request): Promise<Response> {
  const cache = await caches.open(kept);
  return (await cache.match(address)) ?? (await caches.match(address)) ?? fetch(request);
}

export {};
