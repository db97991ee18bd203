/** What an address asks for. */
import { expect, test } from "vitest";
import { FIRST_DOCUMENT, isDocumentId, readRoute } from "../src/route";

test("an address names a document, hands a token over, and keeps neither in the query", () => {
  const check = (address: string, documentId: string, token: string | undefined, clean: string): void =>
    expect(readRoute(`http://host${address}`)).toEqual({ documentId, token, address: `http://host${clean}` });
  check("/", FIRST_DOCUMENT, undefined, "/#welcome");
  check("/#team/notes", "team/notes", undefined, "/#team/notes");
  check("/?doc=team/notes", "team/notes", undefined, "/#team/notes");
  check("/?token=a.b.c#notes", "notes", "a.b.c", "/#notes");
  check("/?doc=one&token=%20&other=1#two", "one", undefined, "/?other=1#one");
  check("/sub/?token=x", FIRST_DOCUMENT, "x", "/sub/#welcome");
  check("/#a%2Fb", "a/b", undefined, "/#a/b");
  check("/#%zz", FIRST_DOCUMENT, undefined, "/#welcome");
  check("/?doc=..", FIRST_DOCUMENT, undefined, "/#welcome");
});

test("d1_document_ids_as_the_server_takes_them", () => {
  for (const id of ["a", "team/notes", "A.b_c-9", "x".repeat(128)]) expect(isDocumentId(id), id).toBe(true);
  for (const id of ["", "/a", "a/", "a//b", "..", "a/../b", "ä", "a b", "x".repeat(129)]) {
    expect(isDocumentId(id), id).toBe(false);
  }
});
