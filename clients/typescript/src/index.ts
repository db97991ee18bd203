/**
 * The public face of `@syncline/client`: everything an application may use is exported here, and nothing else is.
 */
export type { ClientOptions, OpenOptions } from "./client.js";
export type { DocHandle, Drafts, Presence } from "./handle.js";
export {
  ChangeError,
  ClientError,
  type Access,
  type Change,
  type ChangeFault,
  type ClientErrorKind,
  type ClientEvents,
  type ConnectionStatus,
  type DocHandleEvents,
  type DocumentStatus,
  type Draft,
  type Figures,
  type Other,
  type Safety,
} from "./status.js";
export { indexedDbStorage, type IndexedDbOptions } from "./storage/indexeddb.js";
export { memoryStorage } from "./storage/memory.js";
export { StorageError, type Storage, type StorageFault, type StorageWrite } from "./storage/storage.js";
export { browserTabs } from "./tabs/browser.js";
export type { Channel, Lock, Tabs } from "./tabs/tabs.js";
export type { Connection, Transport, TransportEvents } from "./transport/transport.js";
