/**
 * What the address says: `#team/notes` names the document, so that a link leads to it and no server sees the name in a log.
 * `?doc=` does the same for what drops fragments, and `?token=` hands a token over; both leave the address at once.
 */

/** Shown when the address names none. */
export const FIRST_DOCUMENT = "welcome";

/** What an address asks for. */
export interface Route {
  readonly documentId: string;
  /** A token that came with the address. */
  readonly token: string | undefined;
  /** The address as it should stand from now on. */
  readonly address: string;
}

/** Reads an address; what is not a document id leads to the first document. */
export function readRoute(address: string): Route {
  const url = new URL(address);
  const named = [url.searchParams.get("doc"), fragment(url)].find((id) => id !== null && isDocumentId(id));
  const documentId = named ?? FIRST_DOCUMENT;
  const token = url.searchParams.get("token")?.trim() || undefined;
  url.searchParams.delete("doc");
  url.searchParams.delete("token");
  url.hash = documentId;
  return { documentId, token, address: url.href };
}

/** Rule [D1]: 1 to 128 characters, no empty part between slashes or at an end, no part `..`. */
export function isDocumentId(text: string): boolean {
  return (
    /^[A-Za-z0-9._\-/]{1,128}$/.test(text) && text.split("/").every((part) => part !== "" && part !== "..")
  );
}

function fragment(url: URL): string {
  try {
    return decodeURIComponent(url.hash.slice(1));
  } catch {
    return "";
  }
}
