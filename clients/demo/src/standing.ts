/** Where things stand: the light for safety, the switch for the network, and the figures of the connection. */
import type { ConnectionStatus, Figures, Safety } from "@syncline/client";
import { h, icon, say } from "./dom";

/** What another window of this browser has not sent yet is shown here too, but is for the light of that window to tell. */
const SAFE: Record<Safety, { readonly word: string; readonly meaning: string }> = {
  unstored: { word: "Writing", meaning: "Some of your changes in this window are not stored in this browser yet" },
  local: { word: "Only here", meaning: "Some of your changes in this window are in this browser only" },
  sent: { word: "Sending", meaning: "All your changes in this window are on their way to the server" },
  durable: { word: "Saved", meaning: "All your changes in this window are on the server's disk" },
};

/** The light. */
export interface Light {
  readonly element: HTMLElement;
  show(safety: Safety, unsyncedChanges: number): void;
}

/** Makes the light. */
export function makeLight(): Light {
  const word = h("span", { class: "light-word" });
  const count = h("span", { class: "light-count" });
  const meaning = h("span", { class: "sr-only" });
  const element = h("div", { class: "light", "data-safety": "durable" }, h("span", { class: "dot" }), word, count, meaning);
  return {
    element,
    show(safety, unsyncedChanges) {
      element.dataset["safety"] = safety;
      element.title = SAFE[safety].meaning;
      say(word, SAFE[safety].word);
      say(count, unsyncedChanges > 0 && (safety === "local" || safety === "unstored") ? String(unsyncedChanges) : "");
      say(meaning, SAFE[safety].meaning);
    },
  };
}

/** The switch. */
export interface Network {
  readonly element: HTMLElement;
  show(status: ConnectionStatus, isSwitchedOff: boolean): void;
}

/** Makes the switch; `set` hears whether the page is to be online. */
export function makeNetwork(set: (isOnline: boolean) => void): Network {
  const button = h(
    "button",
    { class: "switch", type: "button", role: "switch", "aria-label": "Online", onclick: () => set(!isOn()) },
    h("span", { class: "knob" }),
  );
  const word = h("span", { class: "network-word", role: "status" });
  const element = h("div", { class: "network" }, button, word);
  const isOn = (): boolean => button.getAttribute("aria-checked") === "true";
  let retryAt: number | undefined;
  let timer: ReturnType<typeof setInterval> | undefined;

  return {
    element,
    show(status, isSwitchedOff) {
      button.setAttribute("aria-checked", String(!isSwitchedOff));
      element.dataset["state"] = isSwitchedOff ? "off" : status.state;
      retryAt = status.state === "offline" ? status.retryAt : undefined;
      const count = (): void => say(word, wording(status, isSwitchedOff, retryAt));
      count();
      clearInterval(timer);
      if (retryAt !== undefined) timer = setInterval(count, 1000);
    },
  };
}

function wording(status: ConnectionStatus, isSwitchedOff: boolean, retryAt: number | undefined): string {
  if (isSwitchedOff) return "Offline";
  switch (status.state) {
    case "connected":
      return "Online";
    case "connecting":
      return "Connecting";
    case "rejected":
      return "Refused";
    case "offline": {
      const seconds = retryAt === undefined ? 0 : Math.ceil((retryAt - Date.now()) / 1000);
      return seconds > 1 ? `Back in ${seconds} s` : "No connection";
    }
  }
}

/** The figures. */
export interface FigureRow {
  readonly element: HTMLElement;
  show(figures: Figures): void;
}

/** Makes the figures. */
export function makeFigures(): FigureRow {
  const [received, sent, trip] = [h("span"), h("span"), h("span")];
  const figure = (name: "bytesIn" | "bytesOut" | "clock", title: string, value: HTMLElement): HTMLElement =>
    h("span", { class: "figure", title }, icon(name), h("span", { class: "sr-only" }, `${title}: `), value);
  const element = h(
    "div",
    { class: "figures" },
    figure("bytesIn", "Received since the page was opened", received),
    figure("bytesOut", "Sent since the page was opened", sent),
    figure("clock", "From the last edit to the server's disk and back", trip),
  );
  return {
    element,
    show({ bytesIn, bytesOut, roundTripMs }) {
      say(received, bytes(bytesIn));
      say(sent, bytes(bytesOut));
      say(trip, roundTripMs === undefined ? "–" : milliseconds(roundTripMs));
    },
  };
}

/** A size for people. */
export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  if (count < 1_000_000) return `${(count / 1000).toFixed(count < 10_000 ? 1 : 0)} kB`;
  return `${(count / 1_000_000).toFixed(1)} MB`;
}

function milliseconds(time: number): string {
  return time < 10 ? `${time.toFixed(1)} ms` : time < 10_000 ? `${Math.round(time)} ms` : `${Math.round(time / 1000)} s`;
}
