/** What a token says of itself. A token is the server's to judge: nothing here is trusted, it only helps to ask in time. */

/** Whose it is and when it expires, in seconds since 1970; undefined where it does not say. */
export interface Claims {
  readonly subject: string | undefined;
  readonly expiry: number | undefined;
}

/** The claims of a JWT, unverified. */
export function claims(token: string): Claims {
  try {
    const payload = token.split(".")[1] ?? "";
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
    const said = JSON.parse(new TextDecoder().decode(bytes)) as { readonly sub?: unknown; readonly exp?: unknown } | null;
    return {
      subject: typeof said?.sub === "string" ? said.sub : undefined,
      expiry: typeof said?.exp === "number" && said.exp >= 0 ? said.exp : undefined,
    };
  } catch {
    return { subject: undefined, expiry: undefined };
  }
}
