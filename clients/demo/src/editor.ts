/**
 * The shared text: CodeMirror, bound to the document, with the others' carets in it. It lives in a shadow root, because there
 * CodeMirror styles itself by constructed sheets, which the page's security policy need not allow.
 */
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { Compartment, EditorState } from "@codemirror/state";
import { drawSelection, EditorView, keymap, placeholder } from "@codemirror/view";
import type { ChangeError, DocHandle } from "@syncline/client";
import { bindText } from "./binding";
import { carets, placeCarets, readCaret } from "./carets";
import { headings } from "./headings";
import type { Board } from "./model";
import type { Caret, Person } from "./visitor";

/** What the editor tells the page. */
export interface EditorHears {
  /** The caret has moved; undefined when the editor has lost it. */
  moved(caret: Caret | undefined): void;
  /** Somebody who may only read has typed. */
  typedInVain(): void;
  /** What was typed could not be written. */
  refused(error: ChangeError): void;
}

/** The shared text of one document. */
export interface Editor {
  readonly element: HTMLElement;
  setReadOnly(isReadOnly: boolean): void;
  showPeople(people: readonly Person[]): void;
  focus(): void;
  close(): void;
}

/** Makes the editor for a document that is ready. */
export function makeEditor(handle: DocHandle<Board>, hears: EditorHears): Editor {
  const element = document.createElement("div");
  element.className = "editor";
  const root = element.attachShadow({ mode: "open" });
  const parent = document.createElement("div");
  parent.className = "inside";
  root.append(parent);
  const binding = bindText(handle, hears.refused);
  const writable = new Compartment();
  let people: readonly Person[] = [];

  const inVain = (_event: Event, { state }: EditorView): boolean => {
    if (state.readOnly) hears.typedInVain();
    return state.readOnly;
  };

  const view = new EditorView({
    root,
    parent,
    state: EditorState.create({
      extensions: [
        history(),
        keymap.of([...defaultKeymap, ...historyKeymap]),
        EditorState.lineSeparator.of("\n"),
        EditorView.lineWrapping,
        drawSelection(),
        placeholder("Write something. Everybody who opens this page sees it."),
        EditorView.contentAttributes.of({ "aria-label": "Shared text", autocapitalize: "sentences", spellcheck: "true", tabindex: "0" }),
        writable.of(readOnly(false)),
        carets,
        headings,
        theme,
        binding.extension,
        EditorView.updateListener.of((update) => {
          if (update.selectionSet || update.focusChanged) tellCaret();
        }),
        EditorView.domEventHandlers({ beforeinput: inVain, paste: inVain, cut: inVain, drop: inVain }),
      ],
    }),
  });

  const tellCaret = (): void => hears.moved(view.hasFocus ? readCaret(view, handle.doc()) : undefined);
  const detach = binding.attach(view);
  // Placed only where the text has changed under them: a look-up costs as much as a keystroke.
  const unfollow = handle.on("change", (change) => {
    if (change.origin !== "local" && people.some(({ caret }) => caret !== undefined)) placeCarets(view, handle.doc(), people);
  });

  return {
    element,
    setReadOnly(isReadOnly) {
      if (view.state.readOnly !== isReadOnly) view.dispatch({ effects: writable.reconfigure(readOnly(isReadOnly)) });
    },
    showPeople(now) {
      if (now.length === 0 && people.length === 0) return;
      people = now;
      placeCarets(view, handle.doc(), people);
    },
    focus: () => view.focus(),
    close() {
      unfollow();
      detach();
      view.destroy();
    },
  };
}

/** A reader keeps a caret, so that he can select, copy and be told why nothing happens when he types. */
function readOnly(isReadOnly: boolean): readonly [ReturnType<typeof EditorState.readOnly.of>, ReturnType<typeof EditorView.contentAttributes.of>] {
  return [EditorState.readOnly.of(isReadOnly), EditorView.contentAttributes.of({ "aria-readonly": String(isReadOnly) })];
}

const theme = EditorView.theme({
  "&": { height: "100%", color: "var(--ink)", backgroundColor: "transparent" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--text-font)", fontSize: "var(--text-size)", lineHeight: "1.7", overflow: "auto" },
  ".cm-content": { padding: "var(--text-space)", caretColor: "var(--accent)", maxWidth: "44rem", margin: "0 auto" },
  ".cm-line": { padding: "0" },
  ".line-heading": { fontFamily: "var(--font)", fontWeight: "680", letterSpacing: "-.015em", lineHeight: "1.35" },
  ".line-heading-1": { fontSize: "1.625em", padding: ".25em 0 .2em" },
  ".line-heading-2": { fontSize: "1.1875em", padding: ".4em 0 .1em" },
  ".line-item": { paddingLeft: ".65em", textIndent: "-.65em" },
  ".line-mark": { color: "var(--quiet)", fontWeight: "400" },
  ".cm-placeholder": { color: "var(--quiet)" },
  ".cm-cursor": { borderLeft: "2px solid var(--accent)", marginLeft: "-1px" },
  ".cm-selectionBackground": { backgroundColor: "var(--selection) !important" },
  ".cm-other-selection": { backgroundColor: "color-mix(in srgb, var(--person) 24%, transparent)", borderRadius: "2px" },
  ".cm-other-caret": {
    position: "relative",
    borderLeft: "2px solid var(--person)",
    margin: "0 -1px",
    textIndent: "0",
    pointerEvents: "none",
  },
  ".cm-other-name": {
    position: "absolute",
    left: "-2px",
    bottom: "100%",
    padding: "0 .4em",
    borderRadius: "4px 4px 4px 0",
    font: "600 .6875rem/1.45 var(--font)",
    color: "var(--on-person)",
    backgroundColor: "var(--person)",
    whiteSpace: "nowrap",
    userSelect: "none",
    animation: "leave 4s forwards",
  },
  "@keyframes leave": { "0%, 80%": { opacity: "1" }, "100%": { opacity: "0" } },
  ...Object.fromEntries(
    Array.from({ length: 8 }, (_none, color) => [`.person-${color}`, { "--person": `var(--person-${color})` }]),
  ),
});
