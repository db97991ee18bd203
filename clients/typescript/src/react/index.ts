/** The React bindings: everything that `@syncline/client/react` exports. */
export type { DocumentView } from "./documents.js";
export {
  SyncProvider,
  useClient,
  useDocument,
  usePresence,
  useSyncStatus,
  type ChangeDocument,
  type ShowPresence,
  type SyncStatus,
} from "./hooks.js";
