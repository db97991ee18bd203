/**
 * How long the tasks of a page take, measured by Chromium itself: in the time that the page's thread was running, so what else
 * the machine does is not counted, and in the time that passed.
 */
import type { CDPSession, Page } from "playwright-core";

/** One task of the page's main thread. */
export interface Task {
  readonly cpuMs: number;
  readonly ms: number;
}

/** What Chromium traces, as far as it is used here; times in microseconds. */
interface Traced {
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly dur?: number;
  readonly tdur?: number;
  readonly args?: { readonly name?: string };
}

/** A measurement that has begun. */
export class Tasks {
  readonly #session: CDPSession;
  readonly #traced: Traced[] = [];

  private constructor(session: CDPSession) {
    this.#session = session;
    session.on("Tracing.dataCollected", ({ value }) => void this.#traced.push(...(value as unknown as Traced[])));
  }

  /** Begins to measure. Only one page may be open that does anything. */
  static async watch(page: Page): Promise<Tasks> {
    const session = await page.context().newCDPSession(page);
    const tasks = new Tasks(session);
    const includedCategories = ["disabled-by-default-devtools.timeline"];
    await session.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories } });
    return tasks;
  }

  /** Ends it; the tasks, longest first. */
  async end(): Promise<Task[]> {
    const complete = new Promise((resolve) => this.#session.once("Tracing.tracingComplete", resolve));
    await this.#session.send("Tracing.end");
    await complete;
    await this.#session.detach();
    const thread = ({ pid, tid }: Traced): string => `${pid} ${tid}`;
    const isNamed = ({ name, args }: Traced): boolean => name === "thread_name" && args?.name === "CrRendererMain";
    const mains = new Set(this.#traced.filter(isNamed).map(thread));
    const tasks = this.#traced.filter((each) => each.name === "RunTask" && mains.has(thread(each)));
    const measured = tasks.map(({ dur = 0, tdur = dur }) => ({ cpuMs: tdur / 1000, ms: dur / 1000 }));
    return measured.sort((one, other) => other.cpuMs - one.cpuMs);
  }
}
