/** Lines that begin with `#` are shown as headings, those with `-` as items. Only what is in sight is looked at. */
import { RangeSetBuilder, type Extension } from "@codemirror/state";
import { Decoration, ViewPlugin, type DecorationSet, type EditorView, type ViewUpdate } from "@codemirror/view";

/** Beyond this many letters a line is only text. */
const BEGINNING = 4;

const LINES = [
  { begins: /^# /, decoration: Decoration.line({ class: "cm-heading cm-heading-1" }) },
  { begins: /^##{1,2} /, decoration: Decoration.line({ class: "cm-heading cm-heading-2" }) },
  { begins: /^[-*] /, decoration: Decoration.line({ class: "cm-item" }) },
] as const;

/** Goes into the editor's extensions. */
export const headings: Extension = ViewPlugin.fromClass(
  class {
    decorations: DecorationSet;

    constructor(view: EditorView) {
      this.decorations = decorate(view);
    }

    update(update: ViewUpdate): void {
      if (update.docChanged || update.viewportChanged) this.decorations = decorate(update.view);
    }
  },
  { decorations: (plugin) => plugin.decorations },
);

function decorate(view: EditorView): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  for (const { from, to } of view.visibleRanges) {
    for (let at = from; at <= to; ) {
      const line = view.state.doc.lineAt(at);
      const beginning = line.text.slice(0, BEGINNING);
      const kind = LINES.find(({ begins }) => begins.test(beginning));
      if (kind !== undefined) builder.add(line.from, line.from, kind.decoration);
      at = line.to + 1;
    }
  }
  return builder.finish();
}
