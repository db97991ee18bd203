/** Typed events. A handler that throws neither stops the others nor the client: `failed` hears of it. */

type Handler<Value> = (value: Value) => void;

/** Handlers by event. */
export class Emitter<Events extends object> {
  readonly #handlers = new Map<keyof Events, Set<Handler<never>>>();
  readonly #failed: (error: unknown) => void;

  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  /** Calls `handler` at every `event`; the function that comes back ends that. */
  on<Name extends keyof Events>(event: Name, handler: Handler<Events[Name]>): () => void {
    const handlers = this.#handlers.get(event) ?? new Set();
    handlers.add(handler as Handler<never>);
    this.#handlers.set(event, handlers);
    return () => this.off(event, handler);
  }

  off<Name extends keyof Events>(event: Name, handler: Handler<Events[Name]>): void {
    this.#handlers.get(event)?.delete(handler as Handler<never>);
  }

  /** Whether anybody would hear of `event`. */
  isHeard(event: keyof Events): boolean {
    return (this.#handlers.get(event)?.size ?? 0) > 0;
  }

  emit<Name extends keyof Events>(event: Name, value: Events[Name]): void {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) {
      try {
        (handler as Handler<Events[Name]>)(value);
      } catch (error) {
        this.#failed(error);
      }
    }
  }
}
