/**
 * Holds up whoever leaves while the storage fails: from its first failure until it has taken everything again. Elsewhere what is
 * not sent yet is kept, so nobody need be held up.
 */
import type { Client } from "@syncline/client";

/** What is used of the client. */
export type Guarded = Pick<Client, "guardUnload" | "on">;

/** Makes the guard; the function that comes back is called at each failure. `works` hears when the storage works again. */
export function makeGuard(client: Guarded, works: () => void): () => void {
  let release: (() => void) | undefined;
  client.on("safety", ({ safety }) => {
    // Both say that the storage has what the server lacks. `durable` does not: then nothing was left for it to take.
    if (release === undefined || (safety !== "local" && safety !== "sent")) return;
    release();
    release = undefined;
    works();
  });
  return () => void (release ??= client.guardUnload());
}
