/** What the service worker keeps when one version of the page follows another, in a model of the browser's caches. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";

const ROOT = "https://sync.example/";

/** By the name of a cache: by address, the version that it came from. In the order in which they were made. */
let kept: Map<string, Map<string, string>>;
/** What the server has: by address, the version. */
let served: Map<string, string>;

beforeEach(() => {
  kept = new Map();
  served = new Map();
  const fetched = (address: string): Response => new Response(served.get(address) ?? "none", { status: served.has(address) ? 200 : 404 });
  const answer = (text: string | undefined): Response | undefined => (text === undefined ? undefined : new Response(text));
  vi.stubGlobal("fetch", async ({ url }: Request) => fetched(url));
  vi.stubGlobal("caches", {
    keys: async () => [...kept.keys()],
    delete: async (name: string) => kept.delete(name),
    match: async (address: string) => answer([...kept.values()].find((files) => files.has(address))?.get(address)),
    open: async (name: string) => {
      const files = kept.get(name) ?? new Map<string, string>();
      kept.set(name, files);
      return {
        addAll: async (requests: Request[]) => requests.forEach(({ url }) => files.set(url, served.get(url) ?? "none")),
        match: async (address: string) => answer(files.get(address)),
      };
    },
  });
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.resetModules();
});

/** The server goes over to a version, whose worker takes over; what comes back fetches a file as a window does. */
async function release(version: string): Promise<(path: string) => Promise<string>> {
  const files = ["./", "style.css", `assets/past-${version}.js`];
  served = new Map(files.map((path) => [new URL(path, ROOT).href, version]));
  const handlers = new Map<string, (event: object) => void>();
  vi.stubGlobal("PAGE_FILES", files);
  vi.stubGlobal("PAGE_VERSION", version);
  vi.stubGlobal("self", {
    registration: { scope: ROOT },
    clients: { claim: async () => undefined },
    skipWaiting: async () => undefined,
    addEventListener: (type: string, handler: (event: object) => void) => void handlers.set(type, handler),
  });
  vi.resetModules();
  await import("../src/worker");
  for (const type of ["install", "activate"]) {
    await new Promise<unknown>((resolve) => handlers.get(type)?.({ waitUntil: resolve }));
  }
  return async (path) => {
    const request = new Request(new URL(path, ROOT));
    let response: Promise<Response> = fetch(request);
    handlers.get("fetch")?.({ request, respondWith: (own: Promise<Response>) => void (response = own) });
    return (await response).text();
  };
}

test("a window of the version before has its files, and a new window none of the former ones", async () => {
  await release("one");
  const get = await release("two");
  expect(await get("assets/past-one.js")).toBe("one");
  expect(await get("assets/past-two.js")).toBe("two");
  served.clear();
  expect(await get("./")).toBe("two");
  expect(await get("style.css")).toBe("two");
});

test("no more than one former version is kept", async () => {
  for (const version of ["one", "two"]) await release(version);
  const get = await release("three");
  expect([...kept.keys()]).toEqual(["syncline-page-two", "syncline-page-three"]);
  expect(await get("assets/past-two.js")).toBe("two");
  expect(await get("assets/past-one.js")).toBe("none");
});
