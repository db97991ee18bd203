/**
 * The hooks. Each is a view of what the client holds (`useSyncExternalStore`); no state is kept twice. The client belongs to the
 * app, which makes it, gives it to `SyncProvider` and closes it.
 */
import type { ChangeFn, ChangeOptions, Doc } from "@automerge/automerge";
import { createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useSyncExternalStore, type ReactNode } from "react";
import type { Client, OpenOptions } from "../client.js";
import { ChangeError, type ConnectionStatus, type Other, type Safety } from "../status.js";
import { documentsOf, type DocumentView } from "./documents.js";

const ClientContext = createContext<Client | undefined>(undefined);

/** Gives a client to all components below. */
export function SyncProvider(props: { readonly client: Client; readonly children?: ReactNode }): ReactNode {
  return createElement(ClientContext.Provider, { value: props.client }, props.children);
}

/** The client of the provider above. */
export function useClient(): Client {
  const client = useContext(ClientContext);
  if (client === undefined) throw new Error("no client: put a SyncProvider around this component");
  return client;
}

/** Changes a document, as `DocHandle.change` does. */
export type ChangeDocument<T> = (fn: ChangeFn<T>, options?: ChangeOptions<T>) => void;

/**
 * A document for as long as the component is mounted: the document (undefined until there is one to show), how to change it, and
 * where it stands. Of several components that use it, the first to mount says how an empty one begins.
 */
export function useDocument<T>(documentId: string, options: OpenOptions<T> = {}): [Doc<T> | undefined, ChangeDocument<T>, DocumentView<T>] {
  const client = useClient();
  const view = useUsed(documentId, options.initial, () => documentsOf(client).view<T>(documentId));
  const change = useCallback<ChangeDocument<T>>(
    (fn, changeOptions) => {
      const { handle } = documentsOf(client).view<T>(documentId);
      if (handle === undefined) throw new ChangeError("not_ready", `${documentId} is not open: change it once it is there`);
      handle.change(fn, changeOptions);
    },
    [client, documentId],
  );
  return [view.doc, change, view];
}

/** Shows a state to the others in the document; undefined takes it back. */
export type ShowPresence<State> = (state: State | undefined) => void;

/**
 * Who else is in a document, and how to show oneself. What a component has shown is taken back when it unmounts. A connection has
 * one state per document: of several components that show one, the last counts.
 */
export function usePresence<State = unknown>(documentId: string): [readonly Other<State>[], ShowPresence<State>] {
  const client = useClient();
  const others = useUsed(documentId, undefined, () => documentsOf(client).others<State>(documentId));
  const shown = useRef(false);
  const show = useCallback<ShowPresence<State>>(
    (state) => {
      shown.current = state !== undefined;
      documentsOf(client).show(documentId, state);
    },
    [client, documentId],
  );
  useEffect(
    () => () => {
      if (shown.current) show(undefined);
    },
    [show],
  );
  return [others, show];
}

/** Where the client stands: its connection, and how safe all own changes are. */
export interface SyncStatus {
  readonly status: ConnectionStatus;
  readonly safety: Safety;
  readonly unsyncedChanges: number;
}

/** Where the client of the provider above stands. */
export function useSyncStatus(): SyncStatus {
  const client = useClient();
  const read = useMemo(() => kept(() => statusOf(client)), [client]);
  const subscribe = useCallback(
    (changed: () => void) => {
      const ends = [client.on("status", changed), client.on("safety", changed)];
      return () => ends.forEach((end) => end());
    },
    [client],
  );
  return useSyncExternalStore(subscribe, read, read);
}

/** Keeps the document in use while the component is mounted, and renders anew when what `read` gives has changed. */
function useUsed<View>(documentId: string, initial: unknown, read: () => View): View {
  const client = useClient();
  // Each document begins as the render says that first names it. `initial` is no reason to use it anew: an object written in place
  // is another one at each render.
  const subscribe = useCallback(
    (changed: () => void) => documentsOf(client).use(documentId, initial, changed),
    [client, documentId],
  );
  return useSyncExternalStore(subscribe, read, read);
}

function statusOf(client: Client): SyncStatus {
  const { status, safety, unsyncedChanges } = client;
  return { status, safety, unsyncedChanges };
}

/** Reads anew, but gives the former object while nothing in it has changed, as React asks for. */
function kept<View>(read: () => View): () => View {
  let last: { readonly view: View; readonly text: string } | undefined;
  return () => {
    const view = read();
    const text = JSON.stringify(view);
    if (last?.text !== text) last = { view, text };
    return last.view;
  };
}
