/**
 * The public face of `@syncline/client`: everything an application may use is exported here, and nothing else is.
 */
export { Client, type ClientOptions, type OpenOptions } from "./client.js";
export type { ClientLimits } from "./core/config.js";
export { DocHandle, type Drafts, type Presence } from "./handle.js";
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
export { webSocketTransport, type SocketLike } from "./transport/websocket.js";
