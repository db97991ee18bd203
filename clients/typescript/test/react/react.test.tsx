// @vitest-environment happy-dom
import * as A from "@automerge/automerge";
import { act, cleanup, configure, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { Component, StrictMode, useEffect, type ReactNode } from "react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Client } from "../../src/client.js";
import { SyncProvider, useDocument, usePresence, useSyncStatus, type ChangeDocument } from "../../src/react/index.js";
import { ChangeError } from "../../src/status.js";
import { TestServer } from "../server/server.js";

configure({ asyncUtilTimeout: 120_000 });

interface Note {
  text: string;
  count?: number;
}

const EMPTY: Note = { text: "empty" };

const clients: Client[] = [];
function client(server: TestServer): Client {
  const made = new Client({ url: "ws://test", transport: server.transport(), groupMs: 0 });
  clients.push(made);
  return made;
}

afterEach(async () => {
  cleanup();
  vi.restoreAllMocks();
  await Promise.all(clients.splice(0).map((each) => each.close()));
});

/** Shows a document, and gives the test a way to change it. */
function Text(props: { id?: string; as?: string; give?: (change: ChangeDocument<Note>) => void }): ReactNode {
  const [doc, change, { status }] = useDocument<Note>(props.id ?? "note", { initial: { ...EMPTY } });
  props.give?.(change);
  return <p data-testid={props.as ?? "text"}>{`${doc?.text ?? "nothing"} (${status.state})`}</p>;
}

const shown = (as = "text"): string | null => screen.getByTestId(as).textContent;

const inside = (within: Client, children: ReactNode): ReactNode => <SyncProvider client={within}>{children}</SyncProvider>;

describe("useDocument", () => {
  it("shows a document, its changes and those of others", async () => {
    const server = new TestServer();
    let change: ChangeDocument<Note> = () => undefined;
    render(
      <>
        {inside(client(server), <Text as="mine" give={(given) => (change = given)} />)}
        {inside(client(server), <Text as="theirs" />)}
      </>,
    );
    expect(shown("mine")).toBe("nothing (opening)");
    await waitFor(() => expect([shown("mine"), shown("theirs")]).toEqual(["empty (live)", "empty (live)"]));
    act(() => change((doc) => void (doc.text = "changed")));
    expect(shown("mine")).toBe("changed (live)");
    await waitFor(() => expect(shown("theirs")).toBe("changed (live)"));
    await waitFor(() => expect(server.doc<Note>("note").text).toBe("changed"));
  });

  it("opens once in StrictMode, for all components, and closes after the last", async () => {
    const server = new TestServer();
    const mine = client(server);
    const open = vi.spyOn(mine, "open");
    const page = (...names: string[]) => (
      <StrictMode>{inside(mine, names.map((name) => <Text key={name} as={name} />))}</StrictMode>
    );
    const { rerender, unmount } = render(page("a", "b"));
    await waitFor(() => expect([shown("a"), shown("b")]).toEqual(["empty (live)", "empty (live)"]));
    rerender(page("b"));
    await waitFor(() => expect(server.members("note")).toBe(1));
    rerender(page("c"));
    expect(shown("c")).toBe("empty (live)");
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.members("note")).toBe(1);
    expect(open).toHaveBeenCalledTimes(1);
    unmount();
    await waitFor(() => expect(server.members("note")).toBe(0));
  });

  it("keeps what was typed right before the last component has gone", async () => {
    const server = new TestServer();
    let change: ChangeDocument<Note> = () => undefined;
    const { unmount } = render(inside(client(server), <Text give={(given) => (change = given)} />));
    await waitFor(() => expect(shown()).toBe("empty (live)"));
    act(() => change((doc) => void (doc.text = "last words")));
    unmount();
    await waitFor(() => expect(server.members("note")).toBe(0));
    const { unmount: again } = render(inside(clients[0]!, <Text />));
    await waitFor(() => expect(shown()).toBe("last words (live)"));
    await waitFor(() => expect(server.doc<Note>("note").text).toBe("last words"));
    again();
  });

  it("goes to another document with its id", async () => {
    const server = new TestServer();
    const mine = client(server);
    const { rerender } = render(inside(mine, <Text id="one" />));
    await waitFor(() => expect(shown()).toBe("empty (live)"));
    rerender(inside(mine, <Text id="two" />));
    await waitFor(() => expect([server.members("one"), server.members("two")]).toEqual([0, 1]));
    await waitFor(() => expect(shown()).toBe("empty (live)"));
  });

  it("begins each document as the render says that first names it", async () => {
    function Begun(props: { id: string }): ReactNode {
      const [doc] = useDocument<Note>(props.id, { initial: { text: `begun as ${props.id}` } });
      return <p data-testid="text">{doc?.text ?? "nothing"}</p>;
    }
    const server = new TestServer();
    const mine = client(server);
    const { rerender } = render(<StrictMode>{inside(mine, <Begun id="one" />)}</StrictMode>);
    await waitFor(() => expect(shown()).toBe("begun as one"));
    rerender(<StrictMode>{inside(mine, <Begun id="two" />)}</StrictMode>);
    await waitFor(() => expect(server.members("two")).toBe(1));
    await waitFor(() => expect(shown()).not.toBe("nothing"));
    expect(shown()).toBe("begun as two");
  });

  it("keeps what two people type into one input at the same time", async () => {
    // As README.md has it.
    function Field(props: { as: string }): ReactNode {
      const [doc, change] = useDocument<Note>("note", { initial: { ...EMPTY } });
      const write = (text: string): void => change((note) => A.updateText(note, ["text"], text));
      return doc === undefined ? null : <input data-testid={props.as} value={doc.text} onChange={(event) => write(event.target.value)} />;
    }
    const server = new TestServer();
    const [ann, bob] = [client(server), client(server)];
    render([inside(ann, <Field as="ann" />), inside(bob, <Field as="bob" />)].map((each, key) => <div key={key}>{each}</div>));
    const field = (as: string): HTMLInputElement => screen.getByTestId(as);
    await waitFor(() => expect([field("ann").value, field("bob").value]).toEqual(["empty", "empty"]));
    act(() => [ann, bob].forEach((each) => each.goOffline()));
    fireEvent.change(field("ann"), { target: { value: "not empty" } });
    fireEvent.change(field("bob"), { target: { value: "empty at all" } });
    act(() => [ann, bob].forEach((each) => each.goOnline()));
    await waitFor(() => expect([field("ann").value, field("bob").value]).toEqual(["not empty at all", "not empty at all"]));
  });

  it("renders only when something has changed", async () => {
    const server = new TestServer();
    let change: ChangeDocument<Note> = () => undefined;
    const renders = vi.fn();
    function Counted(): ReactNode {
      usePresence("note");
      renders();
      return null;
    }
    render(inside(client(server), [<Text key="text" give={(given) => (change = given)} />, <Counted key="counted" />]));
    await waitFor(() => expect(shown()).toBe("empty (live)"));
    const before = renders.mock.calls.length;
    for (const text of ["a", "b", "c"]) act(() => change((doc) => void (doc.text = text)));
    expect(shown()).toBe("c (live)");
    expect(renders.mock.calls.length).toBe(before);
  });

  it("says that a document is refused", async () => {
    const server = new TestServer();
    server.refuse = (document) => (document === "note" ? "forbidden" : undefined);
    render(inside(client(server), <Text />));
    await waitFor(() => expect(shown()).toBe("nothing (refused)"));
  });

  it("does not change what is not there yet", () => {
    let change: ChangeDocument<Note> = () => undefined;
    render(inside(client(new TestServer()), <Text give={(given) => (change = given)} />));
    expect(() => change((doc) => void (doc.text = "early"))).toThrow(ChangeError);
  });

  it("throws at render what opening throws, and without a provider", async () => {
    vi.spyOn(console, "error").mockImplementation(() => undefined);
    render(<Boundary>{inside(client(new TestServer()), <Text id="no good id" />)}</Boundary>);
    await waitFor(() => expect(screen.getByTestId("failure").textContent).not.toBe(""));
    expect(() => render(<Text />)).toThrow("SyncProvider");
  });
});

describe("usePresence", () => {
  function Here(props: { name: string; at?: number }): ReactNode {
    const [others, show] = usePresence<{ name: string; at: number }>("note");
    const { name, at = 0 } = props;
    useEffect(() => show({ name, at }), [show, name, at]);
    return <p data-testid={name}>{others.map(({ state }) => `${state.name}:${state.at}`).join()}</p>;
  }

  it("shows who is here, in StrictMode, and takes a state back at the end", async () => {
    const server = new TestServer();
    const [first, second] = [client(server), client(server)];
    const page = (at: number, both: boolean) => (
      <StrictMode>
        {inside(first, [<Text key="text" as="first" />, <Here key="here" name="ann" />])}
        {inside(second, [<Text key="text" as="second" />, both && <Here key="here" name="bob" at={at} />])}
      </StrictMode>
    );
    const { rerender } = render(page(1, true));
    await waitFor(() => expect([shown("ann"), shown("bob")]).toEqual(["bob:1", "ann:0"]));
    rerender(page(2, true));
    await waitFor(() => expect(shown("ann")).toBe("bob:2"));
    rerender(page(2, false));
    await waitFor(() => expect(shown("ann")).toBe(""));
  });

  it("leaves it to useDocument how a document begins, though children mount first", async () => {
    const server = new TestServer();
    function Parent(): ReactNode {
      const [doc] = useDocument<Note>("note", { initial: { ...EMPTY } });
      return (
        <>
          <Here name="ann" />
          <p data-testid="text">{doc?.text}</p>
        </>
      );
    }
    render(inside(client(server), <Parent />));
    await waitFor(() => expect(shown()).toBe("empty"));
  });
});

describe("useSyncStatus", () => {
  function Light(): ReactNode {
    const { status, safety, unsyncedChanges } = useSyncStatus();
    return <p data-testid="light">{`${status.state} ${safety} ${unsyncedChanges}`}</p>;
  }

  it("says where the client stands", async () => {
    const server = new TestServer();
    const mine = client(server);
    let change: ChangeDocument<Note> = () => undefined;
    render(<StrictMode>{inside(mine, [<Text key="text" give={(given) => (change = given)} />, <Light key="light" />])}</StrictMode>);
    await waitFor(() => expect(shown()).toBe("empty (live)"));
    await waitFor(() => expect(shown("light")).toBe("connected durable 0"));
    await act(async () => mine.goOffline());
    await waitFor(() => expect(shown("light")).toBe("offline durable 0"));
    act(() => change((doc) => void (doc.text = "offline")));
    expect(shown("light")).toBe("offline unstored 1");
    await waitFor(() => expect(shown("light")).toBe("offline local 1"));
    act(() => mine.goOnline());
    await waitFor(() => expect(shown("light")).toBe("connected durable 0"));
    expect(server.doc<Note>("note").text).toBe("offline");
  });
});

class Boundary extends Component<{ children: ReactNode }, { failure: string | undefined }> {
  override state: { failure: string | undefined } = { failure: undefined };

  static getDerivedStateFromError(error: unknown): { failure: string } {
    return { failure: String(error) };
  }

  override render(): ReactNode {
    return this.state.failure === undefined ? this.props.children : <p data-testid="failure">{this.state.failure}</p>;
  }
}
