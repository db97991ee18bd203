/** Lines that begin with `#` are shown as headings, those with `-` as items. Only what is in sight is looked at. */
import { RangeSetBuilder, type Extension } from "@codemirror/state";
import { Decoration, ViewPlugin, type DecorationSet, type EditorView, type ViewUpdate } from "@codemirror/view";

const LINES = [
  { begins: /^# /, class: "line-heading line-heading-1" },
  { begins: /^##{1,2} /, class: "line-heading line-heading-2" },
  { begins: /^[-*] /, class: "line-item" },
] as const;

/** How a line is shown, and how many letters at its begin say so. */
export interface LineKind {
  readonly class: string;
  readonly mark: number;
}

/** Reads the begin of a line. */
export function kindOfLine(text: string): LineKind | undefined {
  for (const { begins, class: name } of LINES) {
    const mark = begins.exec(text)?.[0].length;
    if (mark !== undefined) return { class: name, mark };
  }
  return undefined;
}

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

const MARK = Decoration.mark({ class: "line-mark" });

function decorate(view: EditorView): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  for (const { from, to } of view.visibleRanges) {
    for (let at = from; at <= to; ) {
      const line = view.state.doc.lineAt(at);
      const kind = kindOfLine(line.text);
      if (kind !== undefined) {
        builder.add(line.from, line.from, Decoration.line({ class: kind.class }));
        builder.add(line.from, line.from + kind.mark, MARK);
      }
      at = line.to + 1;
    }
  }
  return builder.finish();
}
