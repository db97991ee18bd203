/** Starts the page: the token out of the address, Automerge's WebAssembly, the client, and what is seen of it. */
import { initializeWasm } from "@automerge/automerge";
import wasm from "@automerge/automerge/automerge.wasm?url";
import { browserTabs, Client, indexedDbStorage } from "@syncline/client";
import { keep } from "./keep";
import { showPage, wasSwitchedOff } from "./page";
import { readRoute } from "./route";
import { TokenDesk } from "./token";
import "./style.css";

const route = readRoute(location.href);
if (route.token !== undefined) keep("tab", "token", route.token);
if (location.href !== route.address) history.replaceState(null, "", route.address);

const root = document.getElementById("page");
if (root === null) throw new Error("the page has lost its element");
try {
  await initializeWasm(wasm);
  start(root);
} catch (error) {
  root.textContent = "This page could not start. Reload it; if that does not help, this browser may be too old for it.";
  throw error;
}

function start(place: HTMLElement): void {
  const desk = new TokenDesk(() => {
    // A client that was made without a token has no use for one.
    if (desk.source === undefined) location.reload();
    else client.goOnline();
  });
  const client = new Client({
    url: new URL("sync", location.href.split(/[?#]/)[0]).href.replace(/^http/, "ws"),
    storage: indexedDbStorage(),
    tabs: browserTabs(),
    offline: wasSwitchedOff(),
    ...(desk.source === undefined ? {} : { token: desk.source }),
  });
  showPage(place, client, desk);
}

if (import.meta.env.PROD && "serviceWorker" in navigator) {
  // Without it the page works as before, but does not open without a network.
  navigator.serviceWorker.register("./worker.js").catch((error: unknown) => console.warn("no service worker:", error));
}
