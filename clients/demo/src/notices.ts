/** What the page has to say, one line each with what can be done about it. A notice has a name and is shown once. */
import { h, icon } from "./dom";

/** Something that can be done about it. */
export interface Action {
  readonly label: string;
  run(): void;
}

/** A notice. */
export interface Notice {
  readonly text: string;
  readonly tone: "calm" | "warn";
  readonly actions?: readonly Action[];
  /** Whether it can be put away. */
  readonly closes?: boolean;
}

/** The notices. */
export interface Notices {
  readonly element: HTMLElement;
  show(name: string, notice: Notice): void;
  hide(name: string): void;
}

/** Makes the place for them. */
export function makeNotices(): Notices {
  const element = h("div", { class: "notices", role: "status" });
  const shown = new Map<string, { readonly text: string; readonly element: HTMLElement }>();
  const hide = (name: string): void => {
    shown.get(name)?.element.remove();
    shown.delete(name);
  };
  return {
    element,
    hide,
    show(name, { text, tone, actions = [], closes = false }) {
      if (shown.get(name)?.text === text) return;
      hide(name);
      const buttons = actions.map(({ label, run }) => h("button", { class: "small", type: "button", onclick: run }, label));
      if (closes) {
        const away = { class: "plain", type: "button", "aria-label": "Put away", onclick: () => hide(name) };
        buttons.push(h("button", away, icon("remove")));
      }
      const notice = h("div", { class: `notice ${tone}`, "data-notice": name }, h("p", {}, text), ...buttons);
      shown.set(name, { text, element: notice });
      element.append(notice);
    },
  };
}
